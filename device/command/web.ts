/** `web`: serves the page in which the device can be looked into. */
import { pageText } from "../web/page_text.ts";
import { WebServer } from "../web/web_server.ts";
import type { Command } from "./command.ts";
import { CommandError } from "./errors.ts";
import { attempt } from "./host_error.ts";
import { SOCKET_PATH } from "./option_parts.ts";
import { parsedOption } from "./options.ts";
import { StopSignals } from "./process_events.ts";

/** An address and a port. */
interface Listen {
  readonly hostname: string;
  readonly port: number;
}

/** Serves the page until it is stopped. */
export const web: Command = {
  name: "web",
  summary: "serve a page in which tables and walks can be looked at",
  usage: ["[--api-socket PATH] [--listen ADDRESS:PORT]"],
  description: `
Serves a page with a virtio-iommu device in it: requests of a guest, the I/O
address space, the tables in each format, and walks, entry by entry, bit by
bit. Prints its address, which has a token in it, and serves until Ctrl-C. With
--api-socket, the page shows a running device, too; it can change nothing of it.`,
  options: [{
    title: "Options",
    options: [
      { name: "api-socket", value: "PATH", help: "the API socket of a running serve" },
      {
        name: "listen",
        value: "ADDRESS:PORT",
        help: "where to listen (default 127.0.0.1:0, a free port)",
      },
    ],
  }],
  ending: `
Example:
  viommu web --api-socket api.sock --listen 127.0.0.1:8080
`,
  async run({ values }, streams) {
    const apiSocket = parsedOption(values, "api-socket", SOCKET_PATH.read, SOCKET_PATH.form);
    const listen = parsedOption(values, "listen", readListen, "ADDRESS:PORT, as 127.0.0.1:8080") ??
      { hostname: "127.0.0.1", port: 0 };
    const page = await pageText();
    if (page === undefined) {
      throw new CommandError(
        "Cannot serve the page: this installation has none; " +
          "use a checkout, or the bundle that deno task bundle makes",
      );
    }
    using signals = new StopSignals();
    const server = await attempt(
      `listen on ${listen.hostname}:${listen.port}`,
      // A promise, so that an error of the host is put into words.
      () => Promise.resolve().then(() => new WebServer({ ...listen, page, apiSocket })),
    );
    const stopped = Promise.withResolvers<void>();
    signals.onStop(stopped.resolve);
    await streams.write(`The page is at ${server.url}\n`);
    await stopped.promise;
    await server.close();
    return 0;
  },
};

/** Reads `ADDRESS:PORT`, `[ADDRESS]:PORT` for IPv6; undefined if the text is neither. */
function readListen(text: string): Listen | undefined {
  const match = /^(?:\[([0-9a-fA-F:]+)\]|([\w.-]+)):(\d{1,5})$/.exec(text);
  if (match === null || Number(match[3]) > 65535) return undefined;
  return { hostname: match[1] ?? match[2], port: Number(match[3]) };
}
