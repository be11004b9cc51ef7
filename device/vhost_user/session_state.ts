/**
 * A session as bytes: all that its messages have set up, for a process that takes over. Descriptors are named by numbers
 * under which another process holds them; where a ring that runs stands, its record says.
 */
import type { MigrationState } from "./migration_messages.ts";
import type { AgreementState } from "./messages.ts";
import type { RegionState } from "./memory_table.ts";
import type { RingSetState } from "./ring_set.ts";

/** The version of the bytes. */
const VERSION = 1;

/** A session. */
export interface SessionState {
  /** Features, status, the channel for messages of the back end. */
  readonly agreement: AgreementState;
  /** Guest memory. */
  readonly regions: readonly RegionState[];
  /** The log of writes, the record of requests in flight. */
  readonly migration: MigrationState;
  /** The rings. */
  readonly rings: RingSetState;
}

/** The bytes of a session. */
export function sessionBytes(state: SessionState): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(JSON.stringify({ version: VERSION, ...state }));
}

/** The session in bytes of {@linkcode sessionBytes}, or one line that says why it cannot be read. */
export function readSession(bytes: Uint8Array<ArrayBuffer>): SessionState | string {
  const { version, ...state } = JSON.parse(new TextDecoder().decode(bytes));
  if (version === VERSION) return state;
  return `The session is of version ${version}, ${VERSION} is known`;
}

/** The descriptors that belong to a session, each once. */
export function heldNumbers(
  { agreement, regions, migration, rings }: SessionState,
): readonly number[] {
  const all = [
    agreement.requests,
    ...regions.map(({ heldAs }) => heldAs),
    ...[migration.log, migration.inflight].map((each) => each?.heldAs ?? 0),
    ...rings.rings.flatMap(({ held }) => held),
  ];
  return [...new Set(all)].filter((number) => number !== 0);
}
