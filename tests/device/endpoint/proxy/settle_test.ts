/** Messages whose answer waits for a back end that runs on a thread of its own. */
import { assert, assertEquals } from "@std/assert";
import { delay } from "@std/async";
import { attach, map, MEMORY, ProxyWorld, unmap } from "./proxy_world.ts";

/** The next message of a worker. */
function said(worker: Worker): Promise<string> {
  return new Promise((resolve) => {
    worker.onmessage = (event: MessageEvent<string>) => resolve(event.data);
  });
}

Deno.test("bypass, device reset, a queue's stop and memory that goes wait for a back end on another thread", async () => {
  const worker = new Worker(import.meta.resolve("./back_end_worker.ts"), { type: "module" });
  await using world = await ProxyWorld.start();
  world.listeners[0]!.close();
  const listening = said(worker);
  worker.postMessage(world.backEndPaths[0]);
  assertEquals(await listening, "listening");
  const frontEnd = world.connect();
  await frontEnd.negotiate();
  await frontEnd.addMemory(0, MEMORY);
  await world.request(attach(), map(10, 1), map(20, 2), unmap(10));
  const { counters } = world;
  let { invalidations } = counters;

  await world.driver.writeConfig(36, Uint8Array.of(1));
  assertEquals(counters.invalidations, ++invalidations);
  assertEquals([counters.acknowledged, world.device.iotlbListeners.waiting], [invalidations, 0]);

  await world.driver.writeConfig(36, Uint8Array.of(1));
  assertEquals(counters.invalidations, invalidations, "nothing changed");

  const region = await world.driver.addMemory(2 * MEMORY, MEMORY);
  world.send(unmap(20));
  await world.driver.removeMemory(region);
  assertEquals(world.device.iotlbListeners.waiting, 0);
  assertEquals(await world.answers(1), 1);

  await world.driver.resetDevice();
  assert(counters.invalidations > invalidations);
  assertEquals([counters.acknowledged, world.device.iotlbListeners.waiting], [
    counters.invalidations,
    0,
  ]);
  assertEquals([counters.timeouts, counters.refused], [0, 0]);
  const closed = said(worker);
  frontEnd.close();
  assertEquals(await closed, "closed");
  worker.terminate();
  await delay(5);
});
