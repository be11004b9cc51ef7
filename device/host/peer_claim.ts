/**
 * Whether a peer that is connected keeps its place when another one comes.
 *
 * There is one place for a VMM on each socket, and a second one is refused. But a connection may outlive its peer (it
 * handed its own end over to us, or to a process that does nothing with it), and a peer may connect and say nothing
 * ever. Neither is ended for that alone: a VMM may be given its connection by another process, and may be slow to
 * begin. They lose the place when another peer wants it.
 *
 * @module
 */
import { PeerProcess, type UnixStream } from "./mod.ts";

/** Milliseconds that a peer may be silent from the beginning on and keep its place. */
const SILENT_MS = 10_000;

/** The claim of one peer. */
export class PeerClaim {
  readonly #process: PeerProcess | undefined;
  readonly #now: () => number;
  readonly #since: number;

  /**
   * The claim of the peer behind a connection that has just begun.
   *
   * @param now A clock in milliseconds.
   */
  constructor(stream: UnixStream, now: () => number = () => performance.now()) {
    this.#process = PeerProcess.of(stream);
    this.#now = now;
    this.#since = now();
  }

  /**
   * Why the peer has to make room for another, or nothing if it keeps its place.
   *
   * @param hasSpoken Whether it has ever sent a whole message.
   */
  lost(hasSpoken: boolean): string | undefined {
    if (this.#process?.isGone === true) return "its process has ended";
    if (hasSpoken || this.#now() - this.#since < SILENT_MS) return undefined;
    return `it has said nothing for ${SILENT_MS / 1000} seconds`;
  }

  /** Lets go of the peer. */
  close(): void {
    this.#process?.close();
  }
}
