/** Frames of this process's own memory: with root, the kernel's real answers; and what is said where it does not give them. */
import { assert, assertEquals } from "@std/assert";
import { createMemoryFile, HostPages, mapMemoryFile } from "../../../device/host/mod.ts";
import { libc, replaceLibc } from "../../../device/host/libc.ts";
import { failAsPlanned, FailurePlan } from "./failing_libc.ts";
import { frameOf, seesFrames } from "./page_frames.ts";

const PAGE = 4096;
const ENOMEM = 12;
const EINTR = 4;

/** The page map, which this process may see. */
function opened(): HostPages {
  const pages = HostPages.open();
  assert(typeof pages !== "string", String(pages));
  return pages;
}

/** What the page map says of one virtual page. */
function entryOf(pages: HostPages, page: number): bigint {
  const entry = new BigUint64Array(1);
  assertEquals(pages.readAt(page * 8, new Uint8Array(entry.buffer)), 8);
  return entry[0];
}

Deno.test({
  name: "HostPages: two mappings of one file have the same frames, each as its own page map says",
  ignore: !seesFrames,
  fn() {
    using pages = opened();
    using file = createMemoryFile("frames-test", 8 * PAGE);
    using one = mapMemoryFile(file, 0, 8 * PAGE);
    using other = mapMemoryFile(file, 0, 8 * PAGE);
    const first = pages.lock(one.buffer, 2 * PAGE, 4 * PAGE);
    assertEquals(entryOf(pages, first) >> 63n, 0n, "nothing is there before it is used");
    assert(pages.populate(first, 4));
    const bytes = new Uint8Array(other.buffer);
    for (let at = 0; at < 4; at++) {
      bytes[(2 + at) * PAGE] = at;
      const entry = entryOf(pages, first + at);
      assertEquals(entry >> 63n, 1n);
      assertEquals(Number(entry & (2n ** 55n - 1n)), frameOf(other.buffer, (2 + at) * PAGE));
    }
    // A read has them there; it does not write.
    assertEquals(new Uint8Array(one.buffer)[3 * PAGE], 1);
  },
});

Deno.test({
  name: "HostPages.lock() locks what it is given, a page with its first use",
  ignore: !seesFrames,
  fn() {
    using pages = opened();
    using file = createMemoryFile("locked-test", 64 * PAGE);
    using memory = mapMemoryFile(file, 0, 64 * PAGE);
    const first = pages.lock(memory.buffer, 0, 64 * PAGE);
    const locked = () => {
      const text = Deno.readTextFileSync("/proc/self/smaps");
      const entry = text.slice(text.indexOf("locked-test"));
      return [/VmFlags:.* lo/.test(entry.split("\n").find((line) => line.startsWith("VmFlags"))!)]
        .concat(Number(/Locked: +(\d+) kB/.exec(entry)![1]) > 0);
    };
    assertEquals(locked(), [true, false]);
    assert(pages.populate(first, 3));
    assertEquals(locked(), [true, true]);
  },
});

Deno.test({
  name: "HostPages: what the host refuses is one line or false",
  ignore: !seesFrames,
  fn() {
    using pages = opened();
    const lines: string[] = [];
    pages.onRefused = (line) => lines.push(line);
    using file = createMemoryFile("refused-test", 4 * PAGE);
    using memory = mapMemoryFile(file, 0, 4 * PAGE);
    assertEquals(pages.lock(memory.buffer, 8, PAGE), -1);
    const plan = new FailurePlan();
    using _ = failAsPlanned(plan);
    plan.fail("mlock2", ENOMEM, 1);
    assertEquals(pages.lock(memory.buffer, 0, 4 * PAGE), -1);
    assertEquals(lines, [
      "Cannot use 4096 bytes of guest memory for host frames: it begins in the middle of a page",
      "Cannot use 16384 bytes of guest memory for host frames: it cannot be locked: ENOMEM " +
      "(CAP_IPC_LOCK, or a limit on locked memory, ulimit -l, as large as the guest, allows it)",
    ]);
    const first = pages.lock(memory.buffer, 0, 4 * PAGE);
    plan.fail("madvise", EINTR, 1);
    assertEquals([pages.populate(first, 4), plan.end()], [true, 1], "interrupted, and tried again");
    plan.fail("madvise", ENOMEM, 1);
    assertEquals(pages.populate(first, 4), false);
    plan.fail("pread", ENOMEM, 1);
    assertEquals(pages.readAt(0, new Uint8Array(8)), 0);
    for (const call of ["open", "mlock2", "madvise", "pread"]) {
      plan.fail(call, ENOMEM, 1);
      assertEquals(typeof HostPages.open(), "string", call);
    }
    plan.end();
  },
});

Deno.test("HostPages.open() says what is missing where the kernel shows no frames", () => {
  const real = libc();
  try {
    replaceLibc({
      ...real,
      // What the kernel does without CAP_SYS_ADMIN: the flags are there, the frame is 0.
      pread(_file, target) {
        const entry = target as Uint8Array;
        entry.fill(0);
        entry[7] = 0x81;
        return entry.length;
      },
    });
    assertEquals(HostPages.open(), "/proc/self/pagemap shows frames to root only (CAP_SYS_ADMIN)");
  } finally {
    replaceLibc(real);
  }
});
