import {
  AF_UNIX,
  EADDRINUSE,
  EAGAIN,
  ECONNABORTED,
  ECONNREFUSED,
  EEXIST,
  EINTR,
  ENOENT,
  RLIMIT_NOFILE,
  S_IFSOCK,
  SHUT_RDWR,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
} from "./constants.ts";
import { Descriptor } from "./descriptor.ts";
import { pathStatus } from "./file_status.ts";
import { cString, errno, libc } from "./libc.ts";
import { errnoName, OsError } from "./os_error.ts";
import { LONGEST_SOCKET_PATH, socketAddress } from "./socket_address.ts";
import { giveToGroup, makeSocketFile, type SocketAccess } from "./socket_file.ts";
import { UnixStream } from "./unix_stream.ts";

/** Connections that may wait to be accepted. */
const BACKLOG = 16;
/** Times that another name or another look is tried where some other process is just as quick. */
const TRIES = 64;
/** Bytes of the name that a socket has before it listens, where the folder's path leaves room for them. */
const NAME_BYTES = 12;
/** Descriptors that are reserved for the process itself. */
const RESERVED_DESCRIPTORS = 16;
/** Milliseconds for which a listener is left alone after an accept that the host refused. */
const REST_MS = 100;

/** A listening unix stream socket, made at a path or inherited. Its descriptor is nonblocking. */
export class UnixListener {
  /** The socket itself; this object closes it. */
  readonly descriptor: Descriptor;
  /** Where it listens, if we made it there ourselves. */
  readonly path: string | undefined;
  /** Called with one line that says why a connection could not be accepted. */
  onProblem: (line: string) => void = () => {};
  /** Called when {@linkcode UnixListener.pollNumber} is a descriptor again. */
  onRested: () => void = () => {};
  /** Device and inode of the socket file, so that another's is never removed. */
  readonly #identity: string;
  #rest: ReturnType<typeof setTimeout> | undefined;

  private constructor(descriptor: Descriptor, path?: string, identity = "") {
    this.descriptor = descriptor;
    this.path = path;
    this.#identity = identity;
  }

  /**
   * Listens at a path. A socket file that is there already and not listened on is replaced.
   *
   * A socket that is bound and does not listen yet refuses connections. So it is bound at a name of its own beside the
   * path and gets the path once it listens: whatever finds a new socket there can connect.
   *
   * Throws a RangeError if the path cannot be a socket's, holds something else, or is served by a running
   * process; an OsError if the host refuses.
   *
   * @param access Who may connect.
   */
  static listen(path: string, access: SocketAccess = {}): UnixListener {
    socketAddress(path);
    removeStale(path);
    const number = libc().socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (number < 0) throw new OsError(`Cannot listen on ${path}`, "socket");
    const descriptor = new Descriptor(number);
    let temporary: string | undefined;
    try {
      temporary = bindBeside(path, number, access);
      const status = pathStatus(temporary);
      // What cannot be told from another's could not be removed in the end.
      if (typeof status === "number") {
        throw new OsError(`Cannot listen on ${path}`, "statx", status);
      }
      const { identity } = status;
      giveToGroup(temporary, path, access);
      if (libc().listen(number, BACKLOG) < 0) {
        throw new OsError(`Cannot listen on ${path}`, "listen");
      }
      nameIt(temporary, path);
      return new UnixListener(descriptor, path, identity);
    } catch (error) {
      descriptor.close();
      throw error;
    } finally {
      if (temporary !== undefined) libc().unlink(cString(temporary));
    }
  }

  /** Takes over a socket that listens already, such as one of socket activation. Its file is not ours to remove. */
  static adopt(descriptor: Descriptor): UnixListener {
    descriptor.setNonblocking();
    return new UnixListener(descriptor);
  }

  /**
   * The descriptor to poll, or -1 for a moment after the host could not accept: a connection that stays in the queue
   * would keep every wait from sleeping.
   */
  get pollNumber(): number {
    return this.#rest === undefined ? this.descriptor.number : -1;
  }

  /**
   * Accepts the next connection; `undefined` if there is none. One that the host refuses, or that would need one of the
   * process's last {@linkcode RESERVED_DESCRIPTORS} descriptors, is reported to {@linkcode UnixListener.onProblem}.
   */
  accept(): UnixStream | undefined {
    const number = libc().accept4(this.descriptor.number, null, null, SOCK_CLOEXEC);
    if (number < 0) {
      const error = errno();
      if (error !== EAGAIN && error !== ECONNABORTED && error !== EINTR) {
        this.#leaveAlone(`accept4 failed: ${errnoName(error)}`);
      }
      return undefined;
    }
    const stream = new UnixStream(new Descriptor(number));
    // It is the lowest number that was free, so all below it are in use.
    if (number < descriptorLimit() - RESERVED_DESCRIPTORS) return stream;
    stream.end();
    this.#leaveAlone(`fewer than ${RESERVED_DESCRIPTORS} descriptors are left`);
    return undefined;
  }

  /** Stops listening and removes the socket file if it is still the one we made; does nothing the second time. */
  close(): void {
    if (!this.descriptor.isOpen) return;
    clearTimeout(this.#rest);
    // An inherited socket keeps listening in another process.
    if (this.path !== undefined) this.#refuseWaiting();
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

  /**
   * Ends the connections that nothing will accept: what was sent on them would be closed with the socket, and may
   * wait.
   */
  #refuseWaiting(): void {
    libc().shutdown(this.descriptor.number, SHUT_RDWR);
    for (let i = 0; i <= BACKLOG; i++) {
      const number = libc().accept4(this.descriptor.number, null, null, SOCK_CLOEXEC);
      if (number < 0) return;
      new UnixStream(new Descriptor(number)).end();
    }
  }

  #leaveAlone(problem: string): void {
    this.onProblem(`Cannot accept a connection: ${problem}`);
    clearTimeout(this.#rest);
    this.#rest = setTimeout(() => {
      this.#rest = undefined;
      this.onRested();
    }, REST_MS);
  }
}

/** How many descriptors the process may have open; without end where the host does not say. */
function descriptorLimit(): number {
  const limits = new BigUint64Array(2);
  return libc().getrlimit(RLIMIT_NOFILE, limits) < 0 ? Infinity : Number(limits[0]);
}

/** Binds a socket at an unused name in the folder of `path`. Returns that path; throws an OsError if the host refuses. */
function bindBeside(path: string, number: number, access: SocketAccess): string {
  const folder = path.slice(0, path.lastIndexOf("/") + 1);
  const room = LONGEST_SOCKET_PATH - new TextEncoder().encode(folder).length;
  for (let tries = 1;; tries++) {
    const temporary = folder + randomName(Math.min(room, NAME_BYTES));
    if (temporary === path && tries < TRIES) continue;
    const address = socketAddress(temporary);
    const bind = () => libc().bind(number, address, address.length);
    const [bound, error] = makeSocketFile(access, bind);
    if (bound === 0) return temporary;
    if (error !== EADDRINUSE || tries === TRIES) {
      throw new OsError(`Cannot listen on ${path}`, "bind", error);
    }
  }
}

/** A name of so many letters and digits, hidden if it has two or more. */
function randomName(length: number): string {
  const random = crypto.getRandomValues(new Uint8Array(length));
  const name = Array.from(random, (byte) => (byte % 36).toString(36)).join("");
  return length < 2 ? name : `.${name.slice(1)}`;
}

/**
 * Gives a socket file the path it is for, where nothing may be. A link never replaces what another process puts there.
 */
function nameIt(temporary: string, path: string): void {
  for (let tries = 1; libc().link(cString(temporary), cString(path)) < 0; tries++) {
    const error = errno();
    if (error !== EEXIST || tries === TRIES) {
      throw new OsError(`Cannot listen on ${path}`, "link", error);
    }
    removeStale(path);
  }
}

/** Makes way for a new socket file: removes a socket that is not listened on, refuses anything else. */
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
  const stream = UnixStream.tryConnect(path);
  if (stream instanceof UnixStream) {
    stream.close();
    return true;
  }
  if (stream.errno === ECONNREFUSED) return false;
  // Its queue of connections is full: a process listens there and is busy.
  if (stream.errno === EAGAIN) return true;
  throw stream;
}
