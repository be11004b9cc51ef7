/**
 * A client of the API socket, for `inspect`.
 *
 * @module
 */
import { CommandError } from "./command.ts";

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
    let response: Response;
    try {
      response = await fetch(`${ORIGIN}${route}`, { client: this.#client });
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      throw new CommandError(
        `Cannot ask ${this.#path}: nothing answers there; is "viommu serve --api-socket" running?`,
      );
    }
    const body = await response.json();
    if (!response.ok) throw new CommandError(`Cannot answer ${route}: ${body.error}`);
    return body;
  }

  /** Closes the connection. */
  close(): void {
    this.#client.close();
  }
}
