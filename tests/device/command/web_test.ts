/** `viommu web`: as a process, from the sources and from the bundle; and its options. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { kill, MAIN } from "../served_process.ts";
import { viommu } from "./in_process.ts";

/** Runs `viommu web` as a process, reads the page that it prints the address of, and has it end by SIGTERM. */
async function pageOf(program: string): Promise<string> {
  const args = ["run", "--quiet", "--allow-all", program, "web"];
  const env = { NO_COLOR: "1" };
  const process = new Deno.Command(Deno.execPath(), { args, env, stdout: "piped" }).spawn();
  try {
    const reader = process.stdout.pipeThrough(new TextDecoderStream()).getReader();
    const { value = "" } = await reader.read();
    const [, url] = /^The page is at (http:\/\/127\.0\.0\.1:\d+\/\w+\/)\n$/.exec(value) ?? [];
    assert(url !== undefined, value);
    const text = await (await fetch(url)).text();
    process.kill("SIGTERM");
    assertEquals((await reader.read()).done, true);
    assertEquals((await process.status).code, 0);
    return text;
  } finally {
    await kill(process);
  }
}

Deno.test("the page of the sources and that of the bundle are the same", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const output = `${folder}/viommu.js`;
    const build = new URL("../../../device/web/build.ts", import.meta.url);
    const args = ["run", "--quiet", "--allow-all", build.pathname, "program", output];
    const { code, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
    assertEquals([code, new TextDecoder().decode(stderr)], [0, ""]);
    const page = await pageOf(output);
    assertStringIncludes(page, "<title>viommu</title>");
    assertEquals(page, await pageOf(MAIN));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("an address that cannot be listened on is one line", async () => {
  const { code, err } = await viommu(["web", "--listen", "8080"]);
  const line =
    "viommu: Cannot take --listen 8080: it must be ADDRESS:PORT, as 127.0.0.1:8080 (see viommu web --help)\n";
  assertEquals([code, err], [2, line]);
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  const used = await viommu(["web", "--listen", `127.0.0.1:${port}`]);
  const what = `viommu: Cannot listen on 127.0.0.1:${port}: the address is in use (EADDRINUSE)`;
  assertEquals([used.code, used.err.slice(0, what.length)], [1, what]);
});
