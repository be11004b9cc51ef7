/**
 * A session that another process holds for one that takes over: written after each message, and begun from what an earlier
 * process has written. Without such a process nothing is written.
 */
import type { Descriptor } from "../host/mod.ts";
import type { Connection } from "./connection.ts";
import type { Messages } from "./messages.ts";
import type { MigrationMessages } from "./migration_messages.ts";
import type { Session } from "./session.ts";
import { heldNumbers, readSession, sessionBytes, type SessionState } from "./session_state.ts";

/** What is kept of the session of an earlier process. */
export interface EarlierSession {
  /** As it was in the last {@linkcode MessageStream.commit}. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The descriptors that belong to it, by the numbers in that commit; those that are needed are taken. */
  readonly descriptors: ReadonlyMap<number, Descriptor>;
}

/** The held side of a session. */
export class HeldSession {
  /** Whether another process holds the session. */
  readonly isHeld: boolean;
  readonly #connection: Connection;
  readonly #session: Session;
  readonly #messages: Messages;
  readonly #migration: MigrationMessages;

  /** For a session and what its messages have set up. */
  constructor(session: Session, messages: Messages, migration: MigrationMessages) {
    this.#connection = session.connection;
    this.isHeld = this.#connection.stream.commit !== undefined;
    this.#session = session;
    this.#messages = messages;
    this.#migration = migration;
  }

  /** The descriptors that the session has open, as `Descriptor.heldAs` numbers them; 0 for one that has no number. */
  get openNumbers(): readonly number[] {
    const events = this.#session.rings.rings.flatMap(({ kick, call, error }) => [
      kick,
      call,
      error,
    ]);
    const channel = this.#messages.requests?.stream.descriptor;
    return [channel, ...events.map((each) => each?.descriptor)].map((each) => each?.heldAs ?? 0);
  }

  /** The message last read is done and answered: the next worker begins after it. */
  commit(): void {
    if (!this.isHeld) return;
    const state: SessionState = {
      agreement: this.#messages.save(),
      regions: this.#session.table.save(),
      migration: this.#migration.save(),
      rings: this.#session.rings.save(),
    };
    this.#connection.stream.commit?.(sessionBytes(state), heldNumbers(state));
  }

  /** Goes on with a session. Returns nothing, or one line that says why that cannot be: then it has to be ended. */
  takeOver({ bytes, descriptors }: EarlierSession): string | undefined {
    const state = readSession(bytes);
    if (typeof state === "string") return state;
    const problem = this.#messages.restore(state.agreement, descriptors) ??
      this.#session.table.restore(state.regions, descriptors) ??
      this.#migration.restore(state.migration, descriptors);
    if (problem !== undefined) return `The session cannot go on: ${problem}`;
    this.#migration.applyLogFeature();
    this.#session.rings.restore(state.rings, descriptors);
    return undefined;
  }
}
