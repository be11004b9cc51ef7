/**
 * The process at the other end of a socket, and whether it has ended.
 *
 * A connection does not tell: a peer can send its own end to this process, which then keeps the connection open alone
 * after the peer has ended.
 */
import { ESRCH, POLLIN, SO_PEERCRED, SO_PEERPIDFD } from "./constants.ts";
import { Descriptor } from "./descriptor.ts";
import { errno, libc } from "./libc.ts";
import { socketOption } from "./socket_option.ts";
import type { UnixStream } from "./unix_stream.ts";

/** The number of the system call, for C libraries that have no function for it; the same on all architectures. */
const PIDFD_OPEN = 434n;

/** The process that made the other end of a socket: connected it, listened, or made the pair. */
export class PeerProcess {
  /** A descriptor of the process (`pidfd_open(2)`); `undefined` if the process had ended already. */
  readonly #process: Descriptor | undefined;

  private constructor(process: Descriptor | undefined) {
    this.#process = process;
  }

  /** The process behind a connection, or `undefined` where it cannot be seen from here. */
  static of({ descriptor }: UnixStream): PeerProcess | undefined {
    // By number, it could be a later process that has the same number.
    const direct = socketOption(descriptor.number, SO_PEERPIDFD);
    if (direct >= 0) return new PeerProcess(new Descriptor(direct));
    const pid = socketOption(descriptor.number, SO_PEERCRED);
    return pid <= 0 ? undefined : PeerProcess.ofProcess(pid);
  }

  /** A process by its number. */
  static ofProcess(pid: number): PeerProcess | undefined {
    const number = libc().pidfdOpen(PIDFD_OPEN, pid, 0);
    if (number >= 0) return new PeerProcess(new Descriptor(number));
    return errno() === ESRCH ? new PeerProcess(undefined) : undefined;
  }

  /** Whether the process has ended. */
  get isGone(): boolean {
    if (this.#process === undefined) return true;
    const slot = new Int32Array([this.#process.number, POLLIN]);
    return libc().poll(slot, 1n, 0) === 1 && ((slot[1] >>> 16) & POLLIN) !== 0;
  }

  /** Closes the descriptor of the process. */
  close(): void {
    this.#process?.close();
  }
}
