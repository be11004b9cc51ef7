/**
 * Serves the page over HTTP, and what a running device says by its API.
 *
 * Everything is behind a token in the path, so another user of the machine cannot read it, and names of hosts other than
 * the one that is listened on are refused, so no page of another origin can. Only GET is taken: nothing that is reached from here changes
 * the device. Each answer is asked for once; nothing is kept.
 */

/** Where and what to serve. */
export interface WebServerOptions {
  /** Address to listen on. */
  readonly hostname: string;
  /** Port to listen on; 0 for a free one. */
  readonly port: number;
  /** The page. */
  readonly page: string;
  /** The API socket of a running device. */
  readonly apiSocket?: string | undefined;
}

/** Headers of every answer. */
const HEADERS: Readonly<Record<string, string>> = {
  "cache-control": "no-store",
  // The page has a policy of its own, which a header would have to repeat. This part is not valid in a page.
  "content-security-policy": "frame-ancestors 'none'",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
};

/** Bytes of a token. */
const TOKEN_BYTES = 16;

/** A server of the page. */
export class WebServer {
  /** Where the page is, token included. */
  readonly url: string;
  readonly #page: string;
  readonly #prefix: string;
  readonly #hosts: readonly string[];
  readonly #api: Deno.HttpClient | undefined;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;

  /**
   * Listens from now on.
   *
   * @throws {Deno.errors.AddrInUse} If the port is in use; other errors of the host likewise.
   */
  constructor({ hostname, port, page, apiSocket }: WebServerOptions) {
    const token = crypto.getRandomValues(new Uint8Array(TOKEN_BYTES)).toHex();
    this.#prefix = `/${token}/`;
    const hasApi = apiSocket !== undefined;
    this.#page = hasApi ? page.replace('data-api=""', 'data-api="api/"') : page;
    this.#server = Deno.serve(
      { hostname, port, onListen: () => {}, onError: internalError },
      (request) => this.#answer(request),
    );
    const bound = this.#server.addr.port;
    const host = hostname.includes(":") ? `[${hostname}]` : hostname;
    this.#hosts = [`${host}:${bound}`, `localhost:${bound}`];
    this.url = `http://${host}:${bound}${this.#prefix}`;
    this.#api = hasApi
      ? Deno.createHttpClient({ proxy: { transport: "unix", path: apiSocket } })
      : undefined;
  }

  /** Ends it, answers that are under way included. */
  async close(): Promise<void> {
    // Closes the connections that browsers keep open as well.
    const ended = this.#server.shutdown();
    this.#api?.close();
    await ended;
  }

  async #answer(request: Request): Promise<Response> {
    const url = new URL(request.url);
    if (!this.#hosts.includes(request.headers.get("host") ?? "")) {
      return text(403, "Cannot answer: the host in the request is not the one that is served");
    }
    if (!url.pathname.startsWith(this.#prefix)) {
      return text(404, "There is nothing here: use the whole address that viommu web has printed");
    }
    if (request.method !== "GET") return text(405, "Only GET is served: this changes nothing");
    const path = url.pathname.slice(this.#prefix.length);
    if (path === "") {
      return new Response(this.#page, {
        headers: { ...HEADERS, "content-type": "text/html; charset=utf-8" },
      });
    }
    if (path.startsWith("api/") && this.#api !== undefined) {
      return await this.#fromApi(this.#api, `/${path.slice(4)}${url.search}`);
    }
    return text(404, "There is no such page");
  }

  /** What the device answers, as it comes. A browser that goes away cancels the body, and so the question. */
  async #fromApi(client: Deno.HttpClient, route: string): Promise<Response> {
    try {
      // A number for a name: a name server is not asked.
      const answer = await fetch(`http://127.0.0.1${route}`, { client });
      const type = answer.headers.get("content-type") ?? "application/json";
      return new Response(answer.body, {
        status: answer.status,
        headers: { ...HEADERS, "content-type": type },
      });
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      const problem = "nothing answers at the API socket; is viommu serve --api-socket running?";
      return Response.json({ error: problem }, { status: 502, headers: HEADERS });
    }
  }
}

/** An answer of one line. */
function text(status: number, line: string): Response {
  return new Response(`${line}\n`, {
    status,
    headers: { ...HEADERS, "content-type": "text/plain; charset=utf-8" },
  });
}

/** The answer where answering has failed; a browser that has gone is none of that. */
function internalError(error: unknown): Response {
  if (!(error instanceof DOMException && error.name === "AbortError")) {
    console.error(`viommu: Cannot answer the browser: ${error}`);
  }
  return text(500, "Cannot answer");
}
