/** What `inspect` says of a socket that is not an API socket, does not answer, or may not be used. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { viommu } from "./in_process.ts";
import { withFolder, withoutRights } from "./test_folder.ts";

/** Answers every connection with a text, or with nothing. */
class Peer implements Disposable {
  readonly #listener: Deno.UnixListener;
  readonly #connections: Deno.UnixConn[] = [];

  constructor(path: string, answer: string | undefined) {
    this.#listener = Deno.listen({ transport: "unix", path });
    this.#serve(answer);
  }

  async #serve(answer: string | undefined): Promise<void> {
    for await (const connection of this.#listener) {
      this.#connections.push(connection);
      if (answer === undefined) continue;
      await connection.read(new Uint8Array(4096));
      await connection.write(new TextEncoder().encode(answer));
      connection.closeWrite();
    }
  }

  [Symbol.dispose](): void {
    this.#listener.close();
    for (const connection of this.#connections) connection.close();
  }
}

/** What `inspect` says. */
async function complaint(api: string, ...more: readonly string[]): Promise<string> {
  const { code, out, err } = await viommu(["inspect", "state", "--api-socket", api, ...more]);
  assertEquals([code, out, err.trimEnd().split("\n").length], [1, "", 1], err);
  return err;
}

Deno.test("inspect says so if the socket is not an API socket", async () => {
  const answers = [
    "hello\n",
    "",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<htm>",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n3",
    "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\n<htm>",
    "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{",
  ];
  for (const answer of answers) {
    await withFolder(async (folder) => {
      using _peer = new Peer(`${folder}/s`, answer);
      const said = await complaint(`${folder}/s`);
      const isCut = answer === "" || answer.includes("500");
      assertStringIncludes(said, isCut ? "ended early" : "is not viommu's API", answer);
    });
  }
});

Deno.test("inspect waits for an answer as long as it is told to", async () => {
  await withFolder(async (folder) => {
    using _silent = new Peer(`${folder}/silent`, undefined);
    assertStringIncludes(
      await complaint(`${folder}/silent`, "--timeout", "50"),
      "no answer within 50 ms; look whether serve is stopped, or wait longer (inspect --timeout MS)",
    );
    using _slow = new Peer(
      `${folder}/slow`,
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
    );
    assertStringIncludes(await complaint(`${folder}/slow`, "--timeout", "50"), "Cannot ");
  });
});

Deno.test("inspect says that nothing is there, nothing listens, or it may not connect", async () => {
  await withFolder(async (folder) => {
    assertStringIncludes(await complaint(`${folder}/none`), "there is no such socket");
    await Deno.writeTextFile(`${folder}/file`, "");
    assertStringIncludes(await complaint(`${folder}/file`), "nothing answers there");
    using _peer = new Peer(`${folder}/s`, "");
    await withoutRights(folder, async () => {
      assertStringIncludes(await complaint(`${folder}/s`), "permission denied");
    });
  });
});
