/**
 * A listening unix stream socket, made at a path or inherited from whoever started us.
 *
 * @module
 */
import {
  AF_UNIX,
  EAGAIN,
  ECONNABORTED,
  EINTR,
  EMFILE,
  ENFILE,
  ENOENT,
  S_IFSOCK,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
} from "./constants.ts";
import { Descriptor } from "./descriptor.ts";
import { pathStatus } from "./file_status.ts";
import { cString, errno, libc, MOST_TRIES } from "./libc.ts";
import { errnoName, OsError } from "./os_error.ts";
import { socketAddress } from "./socket_address.ts";
import { giveToGroup, makeSocketFile, type SocketAccess } from "./socket_file.ts";
import { UnixStream } from "./unix_stream.ts";

/** Connections that may wait to be accepted. */
const BACKLOG = 16;

/** A listening socket. Its descriptor is nonblocking. */
export class UnixListener {
  /** The socket itself; this object closes it. */
  readonly descriptor: Descriptor;
  /** Where it listens, if we made it there ourselves. */
  readonly path: string | undefined;
  /** Device and inode of the socket file, so that another's is never removed. */
  readonly #identity: string;

  private constructor(descriptor: Descriptor, path?: string, identity = "") {
    this.descriptor = descriptor;
    this.path = path;
    this.#identity = identity;
  }

  /**
   * Listens at a path. A socket file that is there already and on which nobody answers is replaced.
   *
   * Throws a RangeError if the path cannot be a socket's, holds something else, or is served by a living
   * process; an OsError if the host refuses.
   *
   * @param access Who may connect.
   */
  static listen(path: string, access: SocketAccess = {}): UnixListener {
    const address = socketAddress(path);
    removeStale(path);
    const number = libc().socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (number < 0) throw new OsError(`Cannot listen on ${path}`, "socket");
    const descriptor = new Descriptor(number);
    const [bound, error] = makeSocketFile(
      access,
      () => libc().bind(number, address, address.length),
    );
    if (bound < 0) {
      descriptor.close();
      throw new OsError(`Cannot listen on ${path}`, "bind", error);
    }
    const status = pathStatus(path);
    const identity = typeof status === "number" ? "" : status.identity;
    try {
      giveToGroup(path, access);
    } catch (error) {
      new UnixListener(descriptor, path, identity).close();
      throw error;
    }
    if (libc().listen(number, BACKLOG) < 0) {
      const error = errno();
      new UnixListener(descriptor, path, identity).close();
      throw new OsError(`Cannot listen on ${path}`, "listen", error);
    }
    return new UnixListener(descriptor, path, identity);
  }

  /** Takes over a socket that listens already, such as one of socket activation. Its file is not ours to remove. */
  static adopt(descriptor: Descriptor): UnixListener {
    descriptor.setNonblocking();
    return new UnixListener(descriptor);
  }

  /**
   * Accepts the next connection; `undefined` when nobody waits. A connection that the process has no
   * descriptor left for stays in the queue and counts as nobody.
   */
  accept(): UnixStream | undefined {
    for (let tries = 1;; tries++) {
      const number = libc().accept4(this.descriptor.number, null, null, SOCK_CLOEXEC);
      if (number >= 0) return new UnixStream(new Descriptor(number));
      const error = errno();
      switch (error) {
        case EAGAIN:
        case ECONNABORTED:
        case EINTR:
        case EMFILE:
        case ENFILE:
          return undefined;
      }
      if (tries === MOST_TRIES) throw new OsError("Cannot accept a connection", "accept4", error);
    }
  }

  /** Stops listening and removes the socket file if it is still the one we made; does nothing the second time. */
  close(): void {
    if (!this.descriptor.isOpen) return;
    this.descriptor.close();
    if (this.path === undefined) return;
    const status = pathStatus(this.path);
    if (typeof status !== "number" && status.identity === this.#identity) {
      libc().unlink(cString(this.path));
    }
  }

  /** Closes it at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/** Makes way for a new socket file: removes a socket that nobody answers on, refuses anything else. */
function removeStale(path: string): void {
  const status = pathStatus(path);
  if (status === ENOENT) return;
  if (typeof status === "number") {
    throw new RangeError(`Cannot listen on ${path}: ${errnoName(status)}`);
  }
  if (status.type !== S_IFSOCK) {
    throw new RangeError(`Cannot listen on ${path}: something that is not a socket is there`);
  }
  if (isServed(path)) {
    throw new RangeError(`Cannot listen on ${path}: another process serves it`);
  }
  if (libc().unlink(cString(path)) < 0 && errno() !== ENOENT) {
    throw new OsError(`Cannot replace the stale socket ${path}`, "unlink");
  }
}

function isServed(path: string): boolean {
  try {
    const stream = UnixStream.tryConnect(path);
    stream?.close();
    return stream !== undefined;
  } catch (error) {
    // Its queue of connections is full: somebody lives there and is busy.
    if (error instanceof OsError && error.errno === EAGAIN) return true;
    throw error;
  }
}
