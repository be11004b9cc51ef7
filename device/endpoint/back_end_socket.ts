/** Where the back end of an endpoint is: a path that it listens on, or a socket of ours that it connects to. */
import { connectProblem, type UnixListener, UnixStream } from "../host/mod.ts";
import type { Log } from "../log.ts";

/** What a back end's socket is made of. */
export interface BackEndSocketOptions {
  /** The path, or the listener, which is closed with the socket. */
  readonly place: string | UnixListener;
  /** Milliseconds between two attempts. */
  readonly retryMs: number;
  /** What log lines call the endpoint. */
  readonly name: string;
  /** Where they go. */
  readonly log: Log;
  /** Called when it is time to try again, or the listener accepts again. */
  readonly onDue: () => void;
}

/** The socket of a back end. */
export class BackEndSocket {
  readonly #options: BackEndSocketOptions;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #retryAt = 0;
  /** What was logged about a back end that cannot be reached. */
  #logged: string | undefined;
  #isClosed = false;

  /** Nothing is connected yet. */
  constructor(options: BackEndSocketOptions) {
    this.#options = options;
    const { place, name, log, onDue } = options;
    if (typeof place === "string") return;
    place.onProblem = (line) => log.warnLimited(`accept ${name}`, `${name}: ${line}`);
    place.onRested = onDue;
  }

  /** The path. */
  get path(): string {
    const { place } = this.#options;
    return typeof place === "string" ? place : place.path ?? "";
  }

  /** The descriptor to poll for a back end that connects, or -1. */
  get pollNumber(): number {
    const { place } = this.#options;
    return typeof place === "string" || !this.#isDue ? -1 : place.pollNumber;
  }

  /** A back end that has connected, if there is one. */
  accept(): UnixStream | undefined {
    const { place } = this.#options;
    return typeof place === "string" ? undefined : place.accept();
  }

  /**
   * Connects if the back end listens at a path; if not, tries again later. What is at the path is the back end's, so
   * that any failure may be over the next time.
   */
  connect(): UnixStream | undefined {
    const { place, name, log } = this.#options;
    if (typeof place !== "string" || !this.#isDue) return undefined;
    const stream = UnixStream.tryConnect(place);
    if (stream instanceof UnixStream) {
      this.#logged = undefined;
      return stream;
    }
    const problem = connectProblem(stream);
    if (problem !== this.#logged) {
      const line = `${name} waits for the back end to listen on ${place}${problem}`;
      log.infoLimited(`waiting ${name}`, line);
    }
    this.#logged = problem;
    this.tryLater();
    return undefined;
  }

  /** Tries at once the next time, and logs what fails. */
  tryNow(): void {
    this.#retryAt = 0;
    this.#logged = undefined;
  }

  /** Tries nothing for a while. */
  tryLater(): void {
    const { retryMs, onDue } = this.#options;
    clearTimeout(this.#retry);
    if (this.#isClosed) return;
    this.#retryAt = performance.now() + retryMs;
    this.#retry = setTimeout(onDue, retryMs + 1);
  }

  /** Connects and accepts nothing any more. Does nothing the second time. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#retry);
    const { place } = this.#options;
    if (typeof place !== "string") place.close();
  }

  get #isDue(): boolean {
    return !this.#isClosed && performance.now() >= this.#retryAt;
  }
}
