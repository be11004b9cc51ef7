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

/** Numbers of the system calls, for C libraries that have no functions for them; the same on all architectures. */
const PIDFD_OPEN = 434n;
const PIDFD_GETFD = 438n;

/** The process that made the other end of a socket: connected it, listened, or made the pair. */
export class PeerProcess {
  /** Its number, which is that of no other process until it {@linkcode isGone}; 0 where that is not known. */
  readonly pid: number;
  /** A descriptor of the process (`pidfd_open(2)`); `undefined` if the process had ended already. */
  readonly #process: Descriptor | undefined;

  private constructor(pid: number, process: Descriptor | undefined) {
    this.pid = pid;
    this.#process = process;
  }

  /** The process behind a connection, or `undefined` where it cannot be seen from here. */
  static of({ descriptor }: { readonly descriptor: Descriptor }): PeerProcess | undefined {
    // By number, it could be a later process that has the same number.
    const direct = socketOption(descriptor.number, SO_PEERPIDFD);
    const pid = socketOption(descriptor.number, SO_PEERCRED);
    if (direct >= 0) return new PeerProcess(Math.max(pid, 0), new Descriptor(direct));
    return pid <= 0 ? undefined : PeerProcess.ofProcess(pid);
  }

  /** A process by its number. */
  static ofProcess(pid: number): PeerProcess | undefined {
    const number = libc().pidfdOpen(PIDFD_OPEN, pid, 0);
    if (number >= 0) return new PeerProcess(pid, new Descriptor(number));
    return errno() === ESRCH ? new PeerProcess(pid, undefined) : undefined;
  }

  /** A descriptor that can be read once the process has ended, to be polled; -1 if it had ended already. */
  get pollNumber(): number {
    return this.#process?.number ?? -1;
  }

  /** Whether the process has ended. */
  get isGone(): boolean {
    if (this.#process === undefined) return true;
    const slot = new Int32Array([this.#process.number, POLLIN]);
    return libc().poll(slot, 1n, 0) === 1 && ((slot[1] >>> 16) & POLLIN) !== 0;
  }

  /**
   * A descriptor of ours for a file that the process has open: both share one open file (`pidfd_getfd(2)`).
   *
   * @returns the error number (above 0) where that cannot be had: EBADF if it has none of this number, EPERM if this
   * process may not trace that one, ESRCH if it has ended, ENOSYS before Linux 5.6.
   */
  fileOf(number: number): Descriptor | number {
    if (this.#process === undefined) return ESRCH;
    const copy = libc().pidfdGetfd(PIDFD_GETFD, this.#process.number, number, 0);
    // The kernel sets close-on-exec. The file may be of any kind, so closing it may block.
    return copy < 0 ? errno() : Descriptor.received(copy);
  }

  /** Closes the descriptor of the process. */
  close(): void {
    this.#process?.close();
  }
}
