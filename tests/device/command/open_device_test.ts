/** Making the device, and the warm-up. */
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { UsageError } from "../../../device/command/errors.ts";
import { makeDevice, prepare } from "../../../device/command/open_device.ts";
import { Log } from "../../../device/log.ts";
import { ALL_RING_FEATURES } from "../../../device/vhost_user/mod.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";

/** The resource that counts open files; its limits are two numbers of 64 bits. */
const RLIMIT_NOFILE = 7;

/** Runs something while this process may open nothing. */
function withoutDescriptors<T>(run: () => T): T {
  const libc = Deno.dlopen("libc.so.6", {
    getrlimit: { parameters: ["i32", "buffer"], result: "i32" },
    setrlimit: { parameters: ["i32", "buffer"], result: "i32" },
  });
  const before = new BigUint64Array(2);
  assertEquals(libc.symbols.getrlimit(RLIMIT_NOFILE, before), 0);
  assertEquals(libc.symbols.setrlimit(RLIMIT_NOFILE, new BigUint64Array([0n, before[1]])), 0);
  try {
    return run();
  } finally {
    libc.symbols.setrlimit(RLIMIT_NOFILE, before);
    libc.close();
  }
}

Deno.test("a warm-up that fails is warned of, and no more", async () => {
  const lines: string[] = [];
  const log = new Log("warn", (line) => lines.push(line));
  await prepare(DEFAULT_OPTIONS, ALL_RING_FEATURES, log);
  assertEquals(lines, []);
  await withoutDescriptors(() => prepare(DEFAULT_OPTIONS, ALL_RING_FEATURES, log));
  assertEquals(lines.length, 1);
  assertStringIncludes(lines[0], "Cannot warm up");
  assertStringIncludes(lines[0], "EMFILE");
});

Deno.test("options that contradict each other are an error of usage", () => {
  for (
    const options of [
      { ...DEFAULT_OPTIONS, endpoints: [] },
      { ...DEFAULT_OPTIONS, inputRange: { firstPage: 0, lastPage: 2 ** 52 - 1 } },
    ]
  ) {
    assertThrows(() => makeDevice(options), UsageError);
  }
});
