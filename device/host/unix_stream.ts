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
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  SCM_MAX_FD,
  SHUT_RDWR,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
} from "./constants.ts";
import { descriptorsClosing } from "./closing.ts";
import { closeAll, closeSocket, Descriptor } from "./descriptor.ts";
import { errno, libc, MOST_TRIES } from "./libc.ts";
import { OsError } from "./os_error.ts";
import { socketAddress } from "./socket_address.ts";
import { SocketMessage } from "./socket_message.ts";

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

  readonly #message = new SocketMessage();

  /** Takes over a connected socket. */
  constructor(descriptor: Descriptor) {
    this.descriptor = descriptor;
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
    const header = this.#message.toReceive(target, start, length, mostDescriptors);
    const flags = MSG_DONTWAIT | MSG_CMSG_CLOEXEC;
    for (let tries = 1;; tries++) {
      const count = libc().recvmsg(this.descriptor.number, header, flags);
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
    const header = this.#message.toSend(source, start, length, descriptors);
    const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    for (let tries = 1;; tries++) {
      const count = libc().sendmsg(this.descriptor.number, header, flags);
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

  /** Ends the connection, other owners of the socket included; what has come is still received, and then its end. */
  shutdown(): void {
    libc().shutdown(this.descriptor.number, SHUT_RDWR);
  }

  /**
   * Ends the connection, other owners of the socket included, and closes it. Unlike {@linkcode UnixStream.close} it
   * cannot be made to wait by what the peer sends meanwhile.
   */
  end(): void {
    if (this.descriptor.isOpen) this.shutdown();
    this.close();
  }

  /** Closes it at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Takes the descriptors that have arrived with the last message. */
  #collect(): void {
    if (this.#message.wasCut) this.descriptorsLost = true;
    for (const number of this.#message.descriptors()) {
      const descriptor = Descriptor.received(number);
      if (descriptor.mayWait && descriptorsClosing() > MOST_CLOSING) this.descriptorsLost = true;
      this.received.push(descriptor);
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
