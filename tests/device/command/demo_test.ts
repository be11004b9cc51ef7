/** The demo, run as a newcomer runs it. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { exists, MAIN } from "../served_process.ts";

Deno.test("demo shows requests, translations, refusals and a clean end, with FFI and run alone", async () => {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--no-prompt", "--allow-ffi", "--allow-run", MAIN, "demo"],
    env: { NO_COLOR: "1" },
  }).output();
  const out = new TextDecoder().decode(stdout);
  assertEquals([code, new TextDecoder().decode(stderr)], [0, ""]);
  assertMatch(out, /ATTACH domain 1, endpoint 00:03\.0 +OK/);
  assertMatch(out, /L2 0x[0-9a-f]+ = 0x800083 +0x200000-0x3fffff -> 0x800000 rw/);
  assertMatch(out, /read +0x1123 +-> 0x5123/);
  assertMatch(out, /write 0x2123 +-> fault no-write, VT-d reason 0x5/);
  assertMatch(out, /UNMAP +half of the block +RANGE/);
  assertMatch(out, /root entry 0x[0-9a-f]+ = .*\n +context entry 0x/);
  assertMatch(out, /read +0x1123 +-> 0x5123, in a page of 4K/);
  assertMatch(
    out,
    /64 at a time: least [0-9.]+, median [0-9.]+, p99 [0-9.]+ {2}\([0-9]+ requests\)/,
  );
  assertStringIncludes(out, "Everything is given back");
  assert(!out.includes("UNWRITTEN"));
});

Deno.test("demo that is stopped ends at once, in one line, and leaves nothing", async () => {
  for (const moment of ["A second process connected", "The time of"]) {
    const process = new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--no-prompt", "--allow-ffi", "--allow-run", MAIN, "demo"],
      env: { NO_COLOR: "1" },
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const said = new Response(process.stderr).text();
    let out = "";
    for await (const text of process.stdout.pipeThrough(new TextDecoderStream())) {
      if (out.includes(moment)) continue;
      out += text;
      if (out.includes(moment)) process.kill("SIGTERM");
    }
    const { code } = await process.status;
    assertEquals([code, await said], [1, "viommu: Cannot finish the demo: it was stopped\n"]);
    assert(!out.includes("Everything is given back"));
    assertEquals(await exists(`/tmp/viommu-demo-${process.pid}.sock`), false);
  }
});
