/**
 * Whether a connected peer keeps its place when another one connects.
 *
 * A socket serves one VMM at a time, and a second one is refused. But a connection may outlive its peer (which sent
 * its own end to this process, or to one that does nothing with it), and a peer may connect and never send anything.
 * Neither is disconnected for that alone: a VMM may be given its connection by another process, and may be slow to
 * begin. It loses its place when another peer connects.
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
   * Why the peer loses its place, or nothing if it keeps it.
   *
   * @param hasSpoken Whether it has ever sent a whole message.
   */
  lost(hasSpoken: boolean): string | undefined {
    if (this.#process?.isGone === true) return "its process has ended";
    if (hasSpoken || this.#now() - this.#since < SILENT_MS) return undefined;
    return `it has said nothing for ${SILENT_MS / 1000} seconds`;
  }

  /** Closes the descriptor of the peer's process. */
  close(): void {
    this.#process?.close();
  }
}
