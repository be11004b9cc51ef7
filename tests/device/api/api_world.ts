/**
 * An API socket in this process, served by hand: a turn at a time, so that work can be counted.
 *
 * @module
 */
import {
  type ApiAccess,
  type ApiContext,
  ApiServer,
  type MappingState,
  type State,
} from "../../../device/api/mod.ts";
import { mappings } from "../../../device/api/mappings.ts";
import { state } from "../../../device/api/state.ts";
import { Work } from "../../../device/api/work.ts";
import { PollSet, UnixListener, UnixStream, WOULD_BLOCK } from "../../../device/host/mod.ts";
import { Log } from "../../../device/log.ts";
import { InProcessGuest } from "../in_process_guest.ts";

/** An answer to a request. */
export interface HttpAnswer {
  readonly status: number;
  readonly head: string;
  readonly body: string;
}

/** The whole text of pieces, each of them on a turn of its own. */
export function textOf(pieces: Iterable<string>, work: Work): string {
  let text = "";
  for (const piece of pieces) {
    text += piece;
    work.begin();
  }
  return text;
}

/** `GET /v1/state`. */
export function stateOf(context: ApiContext, work = new Work()): State {
  return JSON.parse(textOf(state(context, work), work));
}

/** `GET /v1/mappings`. */
export function mappingsOf(
  context: ApiContext,
  query = "",
  work = new Work(),
): readonly MappingState[] {
  return JSON.parse(textOf(mappings(context, new URLSearchParams(query), work), work));
}

/** A device, its API socket, and clients. */
export class ApiWorld implements Disposable {
  /** The guest. */
  readonly guest: InProcessGuest;
  /** What answers. */
  readonly server: ApiServer;
  /** Log lines so far. */
  readonly lines: string[] = [];
  readonly #path: string;
  readonly #poll = new PollSet();
  readonly #clients: ApiTestClient[] = [];

  /** Nothing is connected. */
  constructor(guest: InProcessGuest = new InProcessGuest(), access: ApiAccess = "full") {
    this.guest = guest;
    this.#path = Deno.makeTempFileSync();
    Deno.removeSync(this.#path);
    const context = { device: guest.device, version: "0", connected: true, access };
    const log = new Log("debug", (line) => this.lines.push(line));
    this.server = new ApiServer(UnixListener.listen(this.#path), context, log);
  }

  /** Connects a client. */
  connect(): ApiTestClient {
    const client = new ApiTestClient(UnixStream.connect(this.#path));
    this.#clients.push(client);
    return client;
  }

  /** One turn of the loop: looks, then does a piece of work. Returns whether there was any. */
  turn(): boolean {
    this.#poll.clear();
    this.server.addTo(this.#poll);
    this.#poll.poll(0);
    this.server.look(this.#poll);
    return this.server.serve();
  }

  /** Turns until a client has its answer. */
  async answer(client: ApiTestClient): Promise<HttpAnswer> {
    for (let turns = 0; turns < 1_000_000; turns++) {
      this.turn();
      client.pump();
      const answer = client.take();
      if (answer !== undefined) return answer;
      if (turns % 1000 === 999) await new Promise((resolve) => setTimeout(resolve, 0));
    }
    throw new Error(`No answer in a million turns: ${client.text.slice(0, 200)}`);
  }

  /** Asks with a connection of its own. */
  async ask(request: string): Promise<HttpAnswer> {
    const client = this.connect();
    client.send(request);
    const answer = await this.answer(client);
    client.close();
    return answer;
  }

  /** Ends everything; throws if the device leaked something. */
  [Symbol.dispose](): void {
    for (const client of this.#clients) client.close();
    this.server.close();
    this.#poll.close();
    this.guest.close();
  }
}

/** The other end of a connection. */
export class ApiTestClient {
  /** What came and was not taken yet. */
  text = "";
  /** Whether the server has closed. */
  isClosed = false;
  readonly #stream: UnixStream;
  #unsent: Uint8Array<ArrayBuffer> = new Uint8Array(0);
  readonly #buffer = new Uint8Array(new ArrayBuffer(1 << 18));

  constructor(stream: UnixStream) {
    this.#stream = stream;
  }

  /**
   * Has bytes sent, as the server takes them.
   *
   * @param descriptors Go along with the first of the bytes, and stay the caller's; nothing may be unsent then.
   */
  send(text: string, descriptors: readonly number[] = []): void {
    if (descriptors.length > 0) {
      const first = new TextEncoder().encode(text.slice(0, 1));
      if (this.#unsent.length > 0 || this.#stream.send(first, 0, 1, descriptors) !== 1) {
        throw new Error("Cannot send descriptors: the server has yet to take what was sent before");
      }
      return this.send(text.slice(1));
    }
    const more = new TextEncoder().encode(text);
    const all = new Uint8Array(this.#unsent.length + more.length);
    all.set(this.#unsent);
    all.set(more, this.#unsent.length);
    this.#unsent = all;
    this.pump();
  }

  /** Sends and receives what is possible now. */
  pump(): void {
    if (this.isClosed) return;
    while (this.#unsent.length > 0) {
      const count = this.#stream.send(this.#unsent, 0, this.#unsent.length);
      if (count === WOULD_BLOCK) break;
      this.#unsent = count === 0 ? new Uint8Array(0) : this.#unsent.slice(count);
    }
    for (;;) {
      const count = this.#stream.receive(this.#buffer, 0, this.#buffer.length);
      if (count === WOULD_BLOCK) return;
      if (count === 0) {
        this.isClosed = true;
        return;
      }
      this.text += new TextDecoder().decode(this.#buffer.subarray(0, count));
    }
  }

  /** The next whole answer, if it has come. */
  take(): HttpAnswer | undefined {
    while (this.text.startsWith("HTTP/1.1 100")) {
      const end = this.text.indexOf("\r\n\r\n");
      if (end < 0) return undefined;
      this.text = this.text.slice(end + 4);
    }
    const end = this.text.indexOf("\r\n\r\n");
    if (end < 0) return undefined;
    const head = this.text.slice(0, end);
    const status = Number(head.slice(9, 12));
    const rest = this.text.slice(end + 4);
    const length = /content-length: ([0-9]+)/i.exec(head);
    if (length !== null) {
      if (rest.length < Number(length[1])) return undefined;
      this.text = rest.slice(Number(length[1]));
      return { status, head, body: rest.slice(0, Number(length[1])) };
    }
    if (!/transfer-encoding: chunked/i.test(head)) {
      if (!this.isClosed) return undefined;
      this.text = "";
      return { status, head, body: rest };
    }
    // Only then looked at from the beginning: the last chunk has come.
    if (!rest.includes("\r\n0\r\n\r\n")) return undefined;
    let body = "";
    for (let at = 0;;) {
      const line = rest.indexOf("\r\n", at);
      const size = parseInt(rest.slice(at, line), 16);
      if (size === 0) {
        this.text = rest.slice(line + 4);
        return { status, head, body };
      }
      body += rest.slice(line + 2, line + 2 + size);
      at = line + 2 + size + 2;
    }
  }

  /** Closes this end. */
  close(): void {
    this.#stream.close();
    this.isClosed = true;
  }
}

/** A request without a body. */
export function get(target: string): string {
  return `GET ${target} HTTP/1.1\r\nHost: viommu\r\n\r\n`;
}

/** A request with a body. */
export function post(target: string, body: string): string {
  return `POST ${target} HTTP/1.1\r\nHost: viommu\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
}
