/**
 * One end of a connected unix stream socket that carries bytes and descriptors (`unix(7)`, SCM_RIGHTS).
 *
 * Calls never block and never raise SIGPIPE: a call that would block returns {@linkcode WOULD_BLOCK}, and the caller
 * polls. A descriptor that is received is put into {@linkcode UnixStream.received} at once, so that none is lost.
 */
import {
  AF_UNIX,
  EAGAIN,
  ECONNREFUSED,
  ECONNRESET,
  EINTR,
  ENOENT,
  ENOTCONN,
  EPIPE,
  ETOOMANYREFS,
  MSG_CMSG_CLOEXEC,
  MSG_CTRUNC,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  SCM_MAX_FD,
  SCM_RIGHTS,
  SHUT_RDWR,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOL_SOCKET,
} from "./constants.ts";
import { descriptorsClosing } from "./closing.ts";
import { closeAll, closeSocket, Descriptor } from "./descriptor.ts";
import { addressOf, errno, libc, MOST_TRIES } from "./libc.ts";
import { OsError } from "./os_error.ts";
import { socketAddress } from "./socket_address.ts";

/** Returned if the peer has disconnected. */
export const CLOSED = 0;
/** Returned if a call would block. */
export const WOULD_BLOCK: number = -1;
/** The call has to be repeated. */
const AGAIN = -2;

/** Errors that a peer can cause: it has disconnected, or it does not receive descriptors. */
const PEER_ERRORS: readonly number[] = [ECONNRESET, EPIPE, ENOTCONN, ETOOMANYREFS];

/** Descriptors that may wait to be closed before a peer that sends more of the kind counts as hostile. */
const MOST_CLOSING = 256;

// struct msghdr: name u64 at 0, namelen u32 at 8, iov u64 at 16, iovlen u64 at 24, control u64 at 32,
// controllen u64 at 40, flags i32 at 48. struct iovec: base u64, len u64. struct cmsghdr: len u64,
// level i32, type i32, then data; each padded to 8 bytes.
const HEADER_BYTES = 56;
const CONTROL_HEADER_BYTES = 16;
const CONTROL_BYTES = CONTROL_HEADER_BYTES + ((SCM_MAX_FD * 4 + 7) & ~7);

/** A connected stream socket. */
export class UnixStream {
  /** The socket itself; this object closes it. */
  readonly descriptor: Descriptor;
  /** Descriptors that have arrived and were not taken yet, in order. */
  readonly received: Descriptor[] = [];
  /**
   * Whether control data was ever cut off, as more descriptors came than this process may open; or more came that are
   * neither memory nor events than can be closed.
   */
  descriptorsLost = false;

  readonly #header = new DataView(new ArrayBuffer(HEADER_BYTES));
  readonly #vector = new DataView(new ArrayBuffer(16));
  readonly #control = new DataView(new ArrayBuffer(CONTROL_BYTES));
  readonly #controlAddress: bigint;

  /** Takes over a connected socket. */
  constructor(descriptor: Descriptor) {
    this.descriptor = descriptor;
    this.#controlAddress = addressOf(this.#control.buffer);
    this.#header.setBigUint64(16, addressOf(this.#vector.buffer), true);
    this.#header.setBigUint64(24, 1n, true);
  }

  /** Connects to a listening socket. Throws a RangeError for an impossible path, an OsError if nothing listens there. */
  static connect(path: string): UnixStream {
    const stream = UnixStream.tryConnect(path);
    if (stream instanceof OsError) throw stream;
    return stream;
  }

  /**
   * Connects to a listening socket, or says why that failed: ENOENT and ECONNREFUSED if nothing listens there, EAGAIN
   * if too many connections wait there. Throws a RangeError for an impossible path.
   */
  static tryConnect(path: string): UnixStream | OsError {
    const address = socketAddress(path);
    const number = libc().socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (number < 0) return new OsError(`Cannot connect to ${path}`, "socket");
    const descriptor = new Descriptor(number);
    if (libc().connect(number, address, address.length) < 0) {
      const error = errno();
      descriptor.close();
      return new OsError(`Cannot connect to ${path}`, "connect", error);
    }
    return new UnixStream(descriptor);
  }

  /** Two ends of a new connection. */
  static pair(): [UnixStream, UnixStream] {
    const numbers = new Int32Array(2);
    if (libc().socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, numbers) < 0) {
      throw new OsError("Cannot make a pair of sockets", "socketpair");
    }
    return [
      new UnixStream(new Descriptor(numbers[0])),
      new UnixStream(new Descriptor(numbers[1])),
    ];
  }

  /**
   * Receives up to `length` bytes into `target` from index `start`; descriptors that come along go to
   * {@linkcode UnixStream.received}.
   *
   * @param mostDescriptors How many of them may come along, 0 to {@linkcode SCM_MAX_FD}. The kernel drops those beyond,
   * and {@linkcode UnixStream.descriptorsLost} is set.
   * @returns the bytes received, {@linkcode CLOSED} at the end of the stream, {@linkcode WOULD_BLOCK}.
   */
  receive(
    target: Uint8Array<ArrayBuffer>,
    start: number,
    length: number,
    mostDescriptors: number = SCM_MAX_FD,
  ): number {
    this.#aim(target, start, length);
    this.#header.setBigUint64(32, this.#controlAddress, true);
    this.#header.setBigUint64(40, BigInt(CONTROL_HEADER_BYTES + mostDescriptors * 4), true);
    const flags = MSG_DONTWAIT | MSG_CMSG_CLOEXEC;
    for (let tries = 1;; tries++) {
      const count = libc().recvmsg(this.descriptor.number, this.#header.buffer, flags);
      if (count >= 0) {
        this.#collect();
        return count;
      }
      const failure = this.#failure("Cannot receive", "recvmsg", tries);
      if (failure !== AGAIN) return failure;
    }
  }

  /**
   * Sends up to `length` bytes of `source` from index `start`; the descriptors, which stay the caller's, go
   * with the first byte.
   *
   * @returns the bytes sent (1 or more: then the descriptors went too), {@linkcode CLOSED} if the peer is
   * gone, {@linkcode WOULD_BLOCK}.
   */
  send(
    source: Uint8Array<ArrayBuffer>,
    start: number,
    length: number,
    descriptors: readonly number[] = [],
  ): number {
    this.#aim(source, start, length);
    this.#header.setBigUint64(32, descriptors.length > 0 ? this.#controlAddress : 0n, true);
    this.#header.setBigUint64(40, BigInt(this.#attach(descriptors)), true);
    const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    for (let tries = 1;; tries++) {
      const count = libc().sendmsg(this.descriptor.number, this.#header.buffer, flags);
      if (count >= 0) return count;
      const failure = this.#failure("Cannot send", "sendmsg", tries);
      if (failure !== AGAIN) return failure;
    }
  }

  /** Closes the socket and every descriptor that arrived and was not taken; does nothing the second time. */
  close(): void {
    closeAll(this.received);
    closeSocket(this.descriptor);
  }

  /**
   * Ends the connection, other owners of the socket included, and closes it. Unlike {@linkcode UnixStream.close} it
   * cannot be made to wait by what the peer sends meanwhile.
   */
  end(): void {
    if (this.descriptor.isOpen) libc().shutdown(this.descriptor.number, SHUT_RDWR);
    this.close();
  }

  /** Closes it at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }

  #aim(bytes: Uint8Array<ArrayBuffer>, start: number, length: number): void {
    if (length < 1 || start < 0 || start + length > bytes.length) {
      throw new RangeError(
        `Cannot transfer outside the buffer: ${length} bytes from ${start} of ${bytes.length}`,
      );
    }
    const address = addressOf(bytes.buffer) + BigInt(bytes.byteOffset + start);
    this.#vector.setBigUint64(0, address, true);
    this.#vector.setBigUint64(8, BigInt(length), true);
    this.#header.setInt32(48, 0, true);
  }

  /** Puts descriptors into the control buffer and says how many bytes of it are used. */
  #attach(descriptors: readonly number[]): number {
    if (descriptors.length === 0) return 0;
    if (descriptors.length > SCM_MAX_FD) {
      throw new RangeError(
        `Cannot send more than ${SCM_MAX_FD} descriptors: ${descriptors.length}`,
      );
    }
    const length = CONTROL_HEADER_BYTES + descriptors.length * 4;
    this.#control.setBigUint64(0, BigInt(length), true);
    this.#control.setInt32(8, SOL_SOCKET, true);
    this.#control.setInt32(12, SCM_RIGHTS, true);
    for (let i = 0; i < descriptors.length; i++) {
      this.#control.setInt32(CONTROL_HEADER_BYTES + i * 4, descriptors[i], true);
    }
    return (length + 7) & ~7;
  }

  /** Takes the descriptors out of the control buffer that the kernel has filled. */
  #collect(): void {
    if ((this.#header.getInt32(48, true) & MSG_CTRUNC) !== 0) this.descriptorsLost = true;
    const filled = Number(this.#header.getBigUint64(40, true));
    let at = 0;
    while (at + CONTROL_HEADER_BYTES <= filled) {
      const length = Number(this.#control.getBigUint64(at, true));
      if (length < CONTROL_HEADER_BYTES || at + length > filled) break;
      const rights = this.#control.getInt32(at + 8, true) === SOL_SOCKET &&
        this.#control.getInt32(at + 12, true) === SCM_RIGHTS;
      for (let data = CONTROL_HEADER_BYTES; rights && data + 4 <= length; data += 4) {
        const descriptor = Descriptor.received(this.#control.getInt32(at + data, true));
        if (descriptor.mayWait && descriptorsClosing() > MOST_CLOSING) this.descriptorsLost = true;
        this.received.push(descriptor);
      }
      at += (length + 7) & ~7;
    }
  }

  /** What a failed call is answered with; {@linkcode AGAIN} if it has to be made once more. */
  #failure(action: string, call: string, tries: number): number {
    const error = errno();
    if (error === EAGAIN) return WOULD_BLOCK;
    if (PEER_ERRORS.includes(error)) return CLOSED;
    if (error === EINTR || tries < MOST_TRIES) return AGAIN;
    throw new OsError(`${action} on descriptor ${this.descriptor.number}`, call, error);
  }
}

/** Why a connection failed, as the end of a log line; nothing where nothing listens yet. */
export function connectProblem({ call, code, errno }: OsError): string {
  return errno === ENOENT || errno === ECONNREFUSED ? "" : `: ${call} failed: ${code}`;
}
