/** The demo, run as a newcomer runs it. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { MAIN } from "../served_process.ts";

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
  assertMatch(out, /at a time: [0-9.]+ us a request/);
  assertStringIncludes(out, "Everything is given back");
  assert(!out.includes("UNWRITTEN"));
});
