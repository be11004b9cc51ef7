/** Where threads run, ours and those of another process. */
import { assert, assertEquals } from "@std/assert";
import {
  currentProcessor,
  moveAwayFrom,
  PeerThreads,
  ProcessorSet,
  UnixStream,
} from "../../../device/host/mod.ts";
import { allowedProcessors, restrictTo } from "../../../device/host/processors.ts";
import { until } from "../../until.ts";
import { BusyProcess } from "./busy_process.ts";
import { openDescriptors } from "./host_state.ts";
import { only, sitOn } from "./placement.ts";

/** The processors that this thread may use, as numbers. */
function allowed(): number[] {
  const set = allowedProcessors();
  return Array.from({ length: 1024 }, (_, i) => i).filter((i) => set.has(i));
}

const hasSeveral = allowed().length > 1;

/** The processors that `threads` run on, once there are any. */
async function processorsOf(threads: PeerThreads): Promise<ProcessorSet> {
  const set = new ProcessorSet();
  for (let i = 0; i < 500 && set.size === 0; i++) {
    threads.addProcessors(set);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return set;
}

Deno.test("ProcessorSet holds the numbers that were added, up to those that Linux counts", () => {
  const set = new ProcessorSet();
  for (const processor of [0, 7, 8, 1023, 1024, 5000]) set.add(processor);
  assertEquals([0, 1, 7, 8, 1023].map((i) => set.has(i)), [true, false, true, true, true]);
  assertEquals(set.size, 4);
  set.clear();
  assertEquals(set.size, 0);
});

Deno.test("the thread runs on a processor that it may use", () => {
  assert(allowed().includes(currentProcessor()));
});

Deno.test({
  name: "moveAwayFrom leaves the processors named, and leaves what may be used as it was",
  ignore: !hasSeveral,
  fn() {
    const before = allowed();
    for (const processor of before.slice(0, 2)) {
      let left = false;
      // The kernel may bring the thread back before it asks where it is.
      for (let i = 0; i < 20 && !left; i++) {
        sitOn(processor);
        assert(moveAwayFrom(only(processor)));
        left = currentProcessor() !== processor;
        assertEquals(allowed(), before);
      }
      assert(left);
    }
  },
});

Deno.test("moveAwayFrom stays where there is nowhere else to go", () => {
  const before = allowed();
  const all = new ProcessorSet();
  for (const processor of before) all.add(processor);
  assertEquals(moveAwayFrom(all), false);
  assertEquals(allowed(), before);
});

Deno.test("restrictTo refuses a set in which there is no processor", () => {
  const before = allowed();
  assertEquals(restrictTo(new ProcessorSet()), false);
  assertEquals(allowed(), before);
});

Deno.test("PeerThreads finds the processor that a busy process runs on, and none for one that has ended", async () => {
  const processor = allowed().at(-1)!;
  await using busy = await BusyProcess.start(processor);
  const threads = PeerThreads.ofProcess(busy.pid)!;
  const found = await processorsOf(threads);
  assertEquals([found.size, found.has(processor)], [1, true]);
  await busy.end();
  found.clear();
  threads.addProcessors(found);
  assertEquals(found.size, 0);
  threads.close();
});

Deno.test("PeerThreads finds no processor for a process that sleeps", async () => {
  const sleeper = new Deno.Command("sleep", { args: ["600"] }).spawn();
  const threads = PeerThreads.ofProcess(sleeper.pid)!;
  const found = new ProcessorSet();
  try {
    const stat = () => Deno.readTextFile(`/proc/${sleeper.pid}/stat`);
    await until(async () => (await stat()).startsWith(`${sleeper.pid} (sleep) S `), "it sleeps");
    threads.addProcessors(found);
    assertEquals(found.size, 0);
  } finally {
    threads.close();
    sleeper.kill("SIGKILL");
    await sleeper.status;
  }
});

Deno.test("PeerThreads has nothing to say of this process, nor of one that is not there", () => {
  const before = openDescriptors();
  const [one, other] = UnixStream.pair();
  assertEquals(PeerThreads.of(one), undefined);
  assertEquals(PeerThreads.ofProcess(2 ** 22 + 1), undefined);
  for (const stream of [one, other]) stream.descriptor.close();
  assertEquals(openDescriptors(), before);
});
