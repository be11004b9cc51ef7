import { CommandError } from "./errors.ts";

/**
 * What stands in front of a route. A number: Deno looks names up even where a unix socket is what it connects to, and a
 * name server may take 5 s to answer.
 */
const ORIGIN = "http://127.0.0.1";

/** Why a connection fails, by the error's name, and what that means. */
export const CONNECT_PROBLEMS: Readonly<Record<string, string>> = {
  EACCES:
    "permission denied; the API socket is its owner's alone unless serve has --api-socket-mode",
  ENOENT: 'there is no such socket; is "viommu serve --api-socket" running?',
  ECONNREFUSED: 'nothing answers there; is "viommu serve --api-socket" running?',
};
/** The same by the words of the runtime. */
const CONNECT_FAILURES: readonly (readonly [words: string, meaning: string])[] = [
  ["Permission denied", CONNECT_PROBLEMS.EACCES],
  ["No such file", CONNECT_PROBLEMS.ENOENT],
  ["Connection refused", CONNECT_PROBLEMS.ECONNREFUSED],
];
/** What is wrong with a peer that answers something else. */
export const NO_API = "what answers there is not viommu's API; give the --api-socket of serve";

/** A client of the API socket of a running `serve`, for `inspect` and `endpoint`. */
export class ApiClient implements Disposable {
  readonly #path: string;
  readonly #limit: number;
  readonly #client: Deno.HttpClient;

  /**
   * Connects with the first question.
   *
   * @param path The API socket.
   * @param limit Milliseconds for which an answer may make no progress.
   */
  constructor(path: string, limit: number) {
    this.#path = path;
    this.#limit = limit;
    this.#client = Deno.createHttpClient({ proxy: { transport: "unix", path } });
  }

  /**
   * Asks for one JSON value.
   *
   * @param route Path and query, such as `/v1/state`.
   * @throws {CommandError} If nothing answers in time, or the answer is an error: one line.
   */
  async get<T>(route: string): Promise<T> {
    return await this.#value(route);
  }

  /** Sends a JSON value, and takes one; as {@linkcode get}. */
  async post<T>(route: string, value: unknown): Promise<T> {
    return await this.#value(route, { method: "POST", body: JSON.stringify(value) });
  }

  /** Removes an object; as {@linkcode get}. */
  async delete<T>(route: string): Promise<T> {
    return await this.#value(route, { method: "DELETE" });
  }

  async #value<T>(route: string, init?: RequestInit): Promise<T> {
    let text = "";
    for await (const piece of this.#pieces(route, init)) text += piece;
    return this.#parsed(text) as T;
  }

  /**
   * Asks for an answer that may be too long to be kept, and gives its lines one by one.
   *
   * @throws {CommandError} As {@linkcode get}.
   */
  async *lines(route: string): AsyncGenerator<string, void> {
    let rest = "";
    for await (const piece of this.#pieces(route)) {
      const lines = (rest + piece).split("\n");
      rest = lines.pop()!;
      yield* lines;
    }
    if (rest !== "") yield rest;
  }

  /** The pieces of an answer that is no error. */
  async *#pieces(route: string, init: RequestInit = {}): AsyncGenerator<string, void> {
    using limit = new TimeLimit(this.#limit);
    try {
      const { signal } = limit;
      const response = await fetch(`${ORIGIN}${route}`, { ...init, signal, client: this.#client });
      if (response.ok) {
        for await (const piece of response.body!.pipeThrough(new TextDecoderStream())) {
          limit.restart();
          yield piece;
          limit.restart();
        }
        return;
      }
      // What changes something is refused in words that say what; a question is named.
      const { error } = this.#parsed(await response.text()) as { readonly error?: unknown };
      if (typeof error !== "string") throw new CommandError(`Cannot ask ${this.#path}: ${NO_API}`);
      throw new CommandError(
        init.method === undefined ? `Cannot answer ${route}: ${error}` : error,
      );
    } catch (error) {
      throw this.#failure(error);
    }
  }

  /** A JSON object or list. */
  #parsed(text: string): object {
    try {
      const value: unknown = JSON.parse(text);
      if (typeof value === "object" && value !== null) return value;
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
    }
    throw new CommandError(`Cannot ask ${this.#path}: ${NO_API}`);
  }

  /** What a failed exchange comes to. */
  #failure(error: unknown): unknown {
    if (error instanceof DOMException && error.name === "TimeoutError") {
      return new CommandError(
        `Cannot ask ${this.#path}: no answer within ${this.#limit} ms; ` +
          "look whether serve is stopped, or wait longer (inspect --timeout MS)",
      );
    }
    if (!(error instanceof TypeError)) return error;
    const words = error.cause instanceof Error ? error.cause.message : error.message;
    const [, meaning] = CONNECT_FAILURES.find(([each]) => words.includes(each)) ?? [];
    if (meaning !== undefined) return new CommandError(`Cannot ask ${this.#path}: ${meaning}`);
    const isCut = !/\(Connect\)|invalid/.test(words);
    return new CommandError(
      isCut
        ? `Cannot read the answer of ${this.#path}: it ended early; has serve ended?`
        : `Cannot ask ${this.#path}: ${NO_API}`,
    );
  }

  /** Closes the connection. */
  close(): void {
    this.#client.close();
  }

  /** Closes it at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/** Ends an exchange in which nothing has happened for so long. */
class TimeLimit implements Disposable {
  readonly #controller = new AbortController();
  readonly #milliseconds: number;
  #timer: ReturnType<typeof setTimeout>;

  constructor(milliseconds: number) {
    this.#milliseconds = milliseconds;
    this.#timer = this.#start();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Something has happened. */
  restart(): void {
    clearTimeout(this.#timer);
    this.#timer = this.#start();
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }

  #start(): ReturnType<typeof setTimeout> {
    return setTimeout(
      () => this.#controller.abort(new DOMException("no progress", "TimeoutError")),
      this.#milliseconds,
    );
  }
}
