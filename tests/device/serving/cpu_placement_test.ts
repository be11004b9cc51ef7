/** The loop's thread leaves the processor that its front end needs, and only then. */
import { assert, assertEquals } from "@std/assert";
import { CpuPlacement } from "../../../device/serving/cpu_placement.ts";
import { currentProcessor, PeerThreads } from "../../../device/host/mod.ts";
import { allowedProcessors, restrictTo } from "../../../device/host/processors.ts";
import { BusyProcess } from "../host/busy_process.ts";
import { only, sitOn } from "../host/placement.ts";

const hasSeveral = allowedProcessors().size > 1;

Deno.test({
  name: "a loop that shares its processor with a busy front end moves away once it is silent",
  ignore: !hasSeveral,
  async fn() {
    const processor = currentProcessor();
    await using busy = await BusyProcess.start(processor);
    using room = new CpuPlacement(PeerThreads.ofProcess(busy.pid));
    let moved = false;
    // The kernel may have moved one of the two already, so that there is nothing to do, or bring this one back.
    for (let i = 0; i < 200 && !moved; i++) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      sitOn(processor);
      moved = room.make() && currentProcessor() !== processor;
    }
    assert(moved);
  },
});

Deno.test({
  name: "a loop stays where it is while its front end is busy elsewhere",
  ignore: !hasSeveral,
  async fn() {
    const all = allowedProcessors();
    const here = only(currentProcessor());
    const elsewhere = Array.from({ length: 1024 }, (_, i) => i)
      .find((i) => all.has(i) && !here.has(i))!;
    await using busy = await BusyProcess.start(elsewhere);
    using room = new CpuPlacement(PeerThreads.ofProcess(busy.pid));
    restrictTo(here);
    try {
      assertEquals(room.make(), false);
    } finally {
      restrictTo(all);
    }
  },
});

Deno.test("a loop looks around once after it woke up, when silent, and again when it was interrupted", () => {
  let looks = 0;
  const room = new class extends CpuPlacement {
    override make(): boolean {
      looks++;
      return false;
    }
  }(undefined);
  room.begin(100);
  room.look(100.02, 0.01);
  assertEquals(looks, 0, "the guest keeps coming");
  room.look(100.06, 0.06);
  room.look(100.1, 0.1);
  assertEquals(looks, 1, "once is enough");
  room.back(105);
  room.look(105.01, 5);
  assertEquals(looks, 1, "the loop was away on business of its own");
  room.look(109, 0);
  room.look(109.1, 0.06);
  assertEquals(looks, 2, "it was interrupted, and is silent again");
  room.begin(200);
  room.look(200.06, 0.06);
  assertEquals(looks, 3, "it woke up again");
});

Deno.test("a front end that cannot be seen is left alone", () => {
  using room = new CpuPlacement(undefined);
  assertEquals(room.make(), false);
});
