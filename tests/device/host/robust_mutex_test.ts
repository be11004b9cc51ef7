import { assert, assertEquals } from "@std/assert";
import {
  ChildProcess,
  createMemoryFile,
  holdRobustMutex,
  initRobustMutex,
  mapMemoryFile,
  MUTEX_BYTES,
  ownCommand,
  PacketChannel,
  robustMutexReleased,
  WOULD_BLOCK,
} from "../../../device/host/mod.ts";
import { until } from "../../until.ts";

const PROGRAM = new URL("sent_and_killed.ts", import.meta.url).href;

Deno.test("a robust mutex tells that the process which held it was killed, not that it was stopped", async () => {
  using file = createMemoryFile("mutex", 4096);
  // Mapped for good: see robust_mutex.ts.
  const memory = mapMemoryFile(file, 0, 4096);
  const mutex = new Uint8Array(memory.buffer, 0, MUTEX_BYTES);
  initRobustMutex(mutex);
  const [one, its] = PacketChannel.pair();
  const child = ChildProcess.start(
    Deno.execPath(),
    [ownCommand()[0], "run", "--quiet", "--allow-ffi", PROGRAM],
    new Map([[its.descriptor.number, 3]]),
  );
  its.close();
  one.send(Uint8Array.of(0), [file.number]);
  await until(() => one.receive() !== WOULD_BLOCK, "the child has the mutex");
  assertEquals(holdRobustMutex(mutex), false);
  let isReleased = false;
  const released = robustMutexReleased(mutex).then((hasEnded) => {
    isReleased = true;
    return hasEnded;
  });
  const SIGSTOP = 19;
  child.kill(SIGSTOP);
  const stat = `/proc/${child.pid}/stat`;
  await until(() => Deno.readTextFileSync(stat).split(") ")[1].startsWith("T"), "it is stopped");
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(isReleased, false);
  child.kill();
  assert(await released, "its holder has died");
  await until(() => child.end !== undefined, "the child is dead");
  one.close();
});
