/** System calls made in every thread: those of the runtime, and those of workers. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { inEveryThread, threadIds } from "../../../device/host/every_thread.ts";
import { SYSTEM_CALLS, systemCall } from "../../../device/host/system_calls.ts";

const PR_SET_TIMERSLACK = 29n;

/** What the kernel says of a thread of this process. */
function timerSlack(thread: number): string {
  return Deno.readTextFileSync(`/proc/${thread}/timerslack_ns`).trim();
}

Deno.test("a call is made in each thread once, and each thread is found", () => {
  const threads = threadIds();
  assert(typeof threads !== "string");
  const listed = [...Deno.readDirSync("/proc/self/task")].map(({ name }) => Number(name));
  assert(threads.includes(Deno.pid) && threads.length > 1);
  assert(threads.every((each) => listed.includes(each)));
  const before = timerSlack(Deno.pid);
  const slack = 71_000n;
  assertEquals(inEveryThread([[SYSTEM_CALLS.prctl, PR_SET_TIMERSLACK, slack]]), undefined);
  try {
    for (const { name } of Deno.readDirSync("/proc/self/task")) {
      assertEquals(timerSlack(Number(name)), `${slack}`, `thread ${name}`);
    }
  } finally {
    inEveryThread([[SYSTEM_CALLS.prctl, PR_SET_TIMERSLACK, BigInt(before)]]);
  }
});

Deno.test("a call that is refused is reported, and the others are made", () => {
  const before = timerSlack(Deno.pid);
  const refused = inEveryThread([
    [SYSTEM_CALLS.prctl, 12345n],
    [SYSTEM_CALLS.prctl, PR_SET_TIMERSLACK, 72_000n],
  ]);
  assertStringIncludes(`${refused}`, "EINVAL");
  assertEquals(timerSlack(Deno.pid), "72000");
  const restore = inEveryThread([[SYSTEM_CALLS.prctl, PR_SET_TIMERSLACK, BigInt(before)]]);
  assertEquals(restore, undefined);
});

Deno.test("a system call gives its result, or its error below zero", () => {
  assertEquals(systemCall(SYSTEM_CALLS.getpid), Deno.pid);
  const EBADF = 9;
  assertEquals(systemCall(SYSTEM_CALLS.close, 0xffff_ffffn), -EBADF);
});
