/**
 * Ownership of file descriptors: each open descriptor has exactly one {@linkcode Descriptor}, whose owner closes it or
 * passes it on.
 */
import { closeElsewhere, closesAtOnce, hasUnread } from "./closing.ts";
import {
  EBADF,
  F_DUPFD_CLOEXEC,
  F_GETFL,
  F_SETFD,
  F_SETFL,
  FD_CLOEXEC,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
} from "./constants.ts";
import { errno, libc } from "./libc.ts";
import { OsError } from "./os_error.ts";

/** An open file descriptor, to be closed by its owner. */
export class Descriptor {
  /** The number under which another process holds a copy of it for this one; 0 if none does. */
  heldAs = 0;
  #number: number;
  readonly #closesAtOnce: boolean;

  /**
   * Takes over an open descriptor.
   *
   * @param mayWait Whether closing it may block for as long as a peer likes; then it is closed on another thread.
   */
  constructor(number: number, mayWait = false) {
    if (!Number.isInteger(number) || number < 0) {
      throw new RangeError(`Cannot own a descriptor below 0: ${number}`);
    }
    this.#number = number;
    this.#closesAtOnce = !mayWait;
  }

  /** Takes over a descriptor that a peer has sent, which may be of any kind. */
  static received(number: number): Descriptor {
    return new Descriptor(number, !closesAtOnce(number));
  }

  /** Takes over a descriptor that was inherited, of any kind; programs that this process starts do not inherit it. */
  static inherited(number: number): Descriptor {
    libc().fcntl(number, F_SETFD, FD_CLOEXEC);
    return Descriptor.received(number);
  }

  /** Whether {@linkcode Descriptor.close} leaves it to another thread. */
  get mayWait(): boolean {
    return !this.#closesAtOnce;
  }

  /** The descriptor's number, or -1 once it is closed or taken. */
  get number(): number {
    return this.#number;
  }

  /** Whether it is still open and ours. */
  get isOpen(): boolean {
    return this.#number >= 0;
  }

  /** Gives the descriptor away: the caller closes it from now on. */
  take(): number {
    const number = this.#number;
    if (number < 0) throw new Error("Cannot take a descriptor that is closed");
    this.#number = -1;
    return number;
  }

  /** A second descriptor for the same open file, with an owner of its own. */
  duplicate(): Descriptor {
    const copy = libc().fcntl(this.#number, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) throw new OsError(`Cannot duplicate descriptor ${this.#number}`, "fcntl");
    return new Descriptor(copy, this.mayWait);
  }

  /** Makes reads and writes on the open file return instead of waiting. */
  setNonblocking(): void {
    const flags = libc().fcntl(this.#number, F_GETFL, 0);
    if (flags < 0 || libc().fcntl(this.#number, F_SETFL, flags | SOCK_NONBLOCK) < 0) {
      throw new OsError(`Cannot make descriptor ${this.#number} nonblocking`, "fcntl");
    }
  }

  /** Closes it, at once or on another thread; does nothing the second time. */
  close(): void {
    const number = this.#number;
    if (number < 0) return;
    this.#number = -1;
    if (!this.#closesAtOnce) return closeElsewhere(number);
    // Linux releases the number even if close reports an error, so it is never tried again; only EBADF means that
    // something else closed a descriptor of ours.
    if (libc().close(number) < 0 && errno() === EBADF) {
      throw new OsError(`Cannot close descriptor ${number}`, "close");
    }
  }

  /** Closes it at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/** Whether the process can open so many more descriptors, found out by trying. */
export function hasDescriptors(count: number): boolean {
  const opened: Descriptor[] = [];
  try {
    for (let i = 0; i < count; i++) {
      const number = i === 0
        ? libc().eventfd(0, SOCK_CLOEXEC)
        : libc().fcntl(opened[0].number, F_DUPFD_CLOEXEC, 3);
      if (number < 0) return false;
      opened.push(new Descriptor(number));
    }
    return true;
  } finally {
    closeAll(opened);
  }
}

/**
 * Closes a connection to a peer. Descriptors that were sent and not received are closed with it, which may block.
 *
 * @param socket It is shut down, so that nothing more is received.
 */
export function closeSocket(socket: Descriptor): void {
  if (socket.isOpen && hasUnread(socket.number)) closeElsewhere(socket.take());
  else socket.close();
}

/** Closes every descriptor of a list and empties it. */
export function closeAll(descriptors: Descriptor[]): void {
  for (const descriptor of descriptors) descriptor.close();
  descriptors.length = 0;
}
