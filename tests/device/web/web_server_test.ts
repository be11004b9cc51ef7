/** The server of the page: who gets an answer, what is passed through to the API, and what the page may load. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { buildPage } from "../../../device/web/build_page.ts";
import { WebServer } from "../../../device/web/web_server.ts";
import { withServe } from "../served_process.ts";

/** Sends a request line with headers as they are, which `fetch` would not; the answer's first line. */
async function statusLine(url: URL, method: string, path: string, host: string): Promise<string> {
  using connection = await Deno.connect({ hostname: url.hostname, port: Number(url.port) });
  const head = `${method} ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`;
  await connection.write(new TextEncoder().encode(head));
  const answer = new Uint8Array(4096);
  const length = await connection.read(answer) ?? 0;
  return new TextDecoder().decode(answer.subarray(0, length)).split("\r\n")[0];
}

/** Runs a server while a test runs. */
async function withServer(
  apiSocket: string | undefined,
  test: (url: URL) => Promise<void>,
): Promise<void> {
  const page = '<html data-api="">page</html>';
  const server = new WebServer({ hostname: "127.0.0.1", port: 0, page, apiSocket });
  try {
    await test(new URL(server.url));
  } finally {
    await server.close();
  }
}

Deno.test("only who has the token and names the host gets an answer, and only to GET", async () => {
  await withServer(undefined, async (url) => {
    const { pathname, host, port } = url;
    const lines = [
      ["GET", pathname, host, "200"],
      ["GET", pathname, `localhost:${port}`, "200"],
      ["GET", "/", host, "404"],
      ["GET", `/${"0".repeat(32)}/`, host, "404"],
      ["GET", pathname, `attacker.example:${port}`, "403"],
      ["POST", pathname, host, "405"],
      ["DELETE", `${pathname}api/v1/endpoints/8`, host, "405"],
      ["GET", `${pathname}api/v1/state`, host, "404"],
    ];
    for (const [method, path, name, status] of lines) {
      const line = await statusLine(url, method, path, name);
      assertEquals(line.split(" ")[1], status, `${method} ${path} ${name}`);
    }
    assert(/^\/[0-9a-f]{32}\/$/.test(pathname), pathname);
  });
});

Deno.test("the API of a running device is read through the page's address, and not written", async () => {
  await withServe([], async ({ api }) => {
    await withServer(api, async (url) => {
      const page = await (await fetch(url)).text();
      assertEquals(page, '<html data-api="api/">page</html>');
      const answer = await fetch(new URL("api/v1/state", url));
      assertEquals([answer.status, answer.headers.get("cache-control")], [200, "no-store"]);
      assertEquals((await answer.json()).domains, []);
      const wrong = await fetch(new URL("api/v1/mappings?domain=99", url));
      assertEquals([wrong.status, (await wrong.json()).error], [404, "There is no domain 99"]);
      const dma = await fetch(new URL("api/v1/dma", url), { method: "POST", body: "{}" });
      assertEquals(dma.status, 405);
      await dma.body?.cancel();
    });
  });
});

Deno.test("where no device answers, the page is told so in a line", async () => {
  await withServer("/nonexistent/api.sock", async (url) => {
    const answer = await fetch(new URL("api/v1/state", url));
    assertEquals(answer.status, 502);
    assertStringIncludes((await answer.json()).error, "nothing answers at the API socket");
  });
});

Deno.test("the page loads nothing, and its policy permits nothing but what is in it", async () => {
  const page = await buildPage();
  const [, policy] = /Content-Security-Policy" content="([^"]+)"/.exec(page)!;
  assert(policy.startsWith("default-src 'none'; script-src 'sha256-"), policy);
  assert(!policy.includes("unsafe"), policy);
  const head = page.slice(0, page.indexOf("<script"));
  assertEquals(/(?:src|href)="(?!data:)/.exec(head), null);
  assertEquals(page.match(/<script/g)?.length, 1);
  // Nothing of the host came along.
  assertEquals(/\bDeno\.\w/.exec(page), null);
});
