/**
 * A client of the API socket, for `inspect` and `endpoint`.
 *
 * @module
 */
import { CommandError } from "./errors.ts";

/**
 * What stands in front of a route. A number: Deno looks names up even where a unix socket is what it connects to, and a
 * name server may take 5 s to answer.
 */
const ORIGIN = "http://127.0.0.1";

/** Asks the API socket of a running `serve`. */
export class ApiClient {
  readonly #path: string;
  readonly #client: Deno.HttpClient;

  /** @param path The API socket. */
  constructor(path: string) {
    this.#path = path;
    this.#client = Deno.createHttpClient({ proxy: { transport: "unix", path } });
  }

  /**
   * Asks for one JSON value.
   *
   * @param route Path and query, such as `/v1/state`.
   * @throws {CommandError} If nothing answers, or the answer is an error: one line.
   */
  async get<T>(route: string): Promise<T> {
    return await this.#value(await this.#ask(route));
  }

  /** Sends a JSON value, and takes one; as {@linkcode get}. */
  async post<T>(route: string, value: unknown): Promise<T> {
    return await this.#value(
      await this.#ask(route, { method: "POST", body: JSON.stringify(value) }),
    );
  }

  /** Removes an object; as {@linkcode get}. */
  async delete<T>(route: string): Promise<T> {
    return await this.#value(await this.#ask(route, { method: "DELETE" }));
  }

  async #value<T>(response: Response): Promise<T> {
    try {
      return await response.json();
    } catch (error) {
      throw this.#cutOff(error);
    }
  }

  /**
   * Asks for an answer that may be too long to be kept, and gives its lines one by one.
   *
   * @throws {CommandError} As {@linkcode get}.
   */
  async *lines(route: string): AsyncGenerator<string, void> {
    const response = await this.#ask(route);
    let rest = "";
    try {
      for await (const text of response.body!.pipeThrough(new TextDecoderStream())) {
        const lines = (rest + text).split("\n");
        rest = lines.pop()!;
        yield* lines;
      }
    } catch (error) {
      throw this.#cutOff(error);
    }
    if (rest !== "") yield rest;
  }

  async #ask(route: string, init: RequestInit = {}): Promise<Response> {
    let response: Response;
    try {
      response = await fetch(`${ORIGIN}${route}`, { ...init, client: this.#client });
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      throw new CommandError(
        `Cannot ask ${this.#path}: nothing answers there; is "viommu serve --api-socket" running?`,
      );
    }
    if (response.ok) return response;
    const { error } = await response.json().catch(() => ({ error: `status ${response.status}` }));
    // What changes something is refused in words that say what; a question is named.
    throw new CommandError(
      init.method === undefined ? `Cannot answer ${route}: ${error}` : `${error}`,
    );
  }

  /** An answer that breaks off, as one line. */
  #cutOff(error: unknown): unknown {
    if (!(error instanceof TypeError || error instanceof SyntaxError)) return error;
    return new CommandError(`Cannot read the answer of ${this.#path}: it ended early`);
  }

  /** Closes the connection. */
  close(): void {
    this.#client.close();
  }
}
