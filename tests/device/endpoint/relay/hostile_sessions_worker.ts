/**
 * A thread of its own for hostile back ends and the relay that they come to. The message to it is a
 * {@linkcode HostileOrder}; it answers with what came of it, or with what failed.
 *
 * @module
 */
import { type HostileOrder, type HostileOutcome, hostileSessions } from "./hostile_sessions.ts";

/** The answer. */
export type HostileAnswer = { readonly outcome: HostileOutcome } | { readonly failure: string };

/** The part of a worker's global scope that is used here. */
interface Scope {
  onmessage: (event: MessageEvent<HostileOrder>) => void;
  postMessage(message: HostileAnswer): void;
}

const scope = self as unknown as Scope;
scope.onmessage = ({ data }) => {
  hostileSessions(data).then(
    (outcome) => scope.postMessage({ outcome }),
    (error: Error) => scope.postMessage({ failure: error.stack ?? error.message }),
  );
};
