/**
 * Where front ends come from, by the rules of `serve`: a listener, one after another; a path at which a front end listens,
 * again whenever it has gone; or one connection that was inherited.
 */
import { connectProblem, UnixListener, UnixStream } from "../host/mod.ts";
import type { Log } from "../log.ts";

/** Milliseconds between two attempts to connect. */
const RECONNECT_MS = 200;
/** A session of at least so many milliseconds may be followed by the next at once. */
const SESSION_MS = 1000;

/** The source of front ends. */
export class FrontDoor {
  readonly #log: Log;
  readonly #listener: UnixListener | undefined;
  readonly #path: string | undefined;
  /** The one connection, until it is taken. */
  #single: UnixStream | undefined;
  /** When the last attempt to connect was made. */
  #tried = -Infinity;
  #problem: string | undefined;

  /** Front ends of a listener, of a path, or a single one; the socket is owned from now on. */
  constructor(socket: UnixListener | UnixStream | string, log: Log) {
    this.#log = log;
    this.#listener = socket instanceof UnixListener ? socket : undefined;
    this.#single = socket instanceof UnixStream ? socket : undefined;
    this.#path = typeof socket === "string" ? socket : undefined;
    if (this.#listener === undefined) return;
    this.#listener.onProblem = (line) => log.warnLimited("accept", line);
  }

  /** What to poll to be read; -1 for nothing. */
  get pollNumber(): number {
    return this.#listener?.pollNumber ?? -1;
  }

  /** Called when {@linkcode FrontDoor.pollNumber} is a descriptor again. */
  set onRested(onRested: () => void) {
    if (this.#listener !== undefined) this.#listener.onRested = onRested;
  }

  /** Milliseconds until {@linkcode FrontDoor.next} is to be called without one being ready; -1 for never. */
  get patience(): number {
    if (this.#path === undefined) return this.#single === undefined ? -1 : 0;
    return Math.max(0, this.#tried + RECONNECT_MS - performance.now());
  }

  /** Whether there is no further front end. */
  get isOver(): boolean {
    return this.#listener === undefined && this.#path === undefined && this.#single === undefined;
  }

  /** The next front end, if there is one now. */
  next(): UnixStream | undefined {
    if (this.#listener !== undefined) return this.#listener.accept();
    const single = this.#single;
    this.#single = undefined;
    if (single !== undefined || this.#path === undefined || this.patience > 0) return single;
    this.#tried = performance.now();
    return this.#connect(this.#path);
  }

  /** A session has ended that began at a time of `performance.now()`. */
  sessionEnded(began: number): void {
    // A front end that accepts and closes at once must not keep this process busy.
    const now = performance.now();
    this.#tried = now - began < SESSION_MS ? now : -Infinity;
  }

  /** Closes the socket. */
  close(): void {
    this.#listener?.close();
    this.#single?.end();
  }

  #connect(path: string): UnixStream | undefined {
    const stream = UnixStream.tryConnect(path);
    // What is at the path is not ours: any failure may be over the next time.
    const problem = stream instanceof UnixStream ? undefined : connectProblem(stream);
    if (problem !== undefined && problem !== this.#problem) {
      this.#log.infoLimited("waiting", `Waiting for a front end to listen on ${path}${problem}`);
    }
    this.#problem = problem;
    return stream instanceof UnixStream ? stream : undefined;
  }
}
