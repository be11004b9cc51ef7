/** The device is there with and without a warm-up. */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { UsageError } from "../../../device/command/errors.ts";
import { openDevice } from "../../../device/command/open_device.ts";
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

Deno.test("a warm-up that fails is warned of, and the device is there all the same", async () => {
  const lines: string[] = [];
  const log = new Log("warn", (line) => lines.push(line));
  (await openDevice(DEFAULT_OPTIONS, ALL_RING_FEATURES, log)).close();
  assertEquals(lines, []);
  const opened = withoutDescriptors(() => openDevice(DEFAULT_OPTIONS, ALL_RING_FEATURES, log));
  const device = await opened;
  assertEquals(device.holds, false);
  assertEquals(lines.length, 1);
  assertStringIncludes(lines[0], "Cannot warm up");
  assertStringIncludes(lines[0], "EMFILE");
  device.close();
});

Deno.test("options that contradict each other are an error of usage, whoever finds that", async () => {
  const log = new Log("warn");
  // The warm-up's device cannot be made; it can, and the one to be served cannot.
  for (
    const options of [
      { ...DEFAULT_OPTIONS, endpoints: [] },
      { ...DEFAULT_OPTIONS, inputRange: { firstPage: 0, lastPage: 2 ** 52 - 1 } },
    ]
  ) {
    await assertRejects(() => openDevice(options, ALL_RING_FEATURES, log), UsageError);
  }
});
