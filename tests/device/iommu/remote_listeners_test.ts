/**
 * Answers wait for IOTLB listeners in other processes: held, shared by a batch, published once, never lost.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { attachRequest, detachRequest } from "../../../device/iommu/driver_requests.ts";
import { IotlbListeners } from "../../../device/iommu/iotlb_listeners.ts";
import type { FrontEndQueue } from "../../../device/vhost_user/mod.ts";
import { until } from "../../until.ts";
import {
  ENDPOINT,
  mapPage,
  nameOf,
  RING_KINDS,
  unmapPage,
  watched,
  World,
} from "./listened_device.ts";

for (const watch of [0, 2000]) {
  Deno.test(`an UNMAP is answered when the listener has acknowledged (watching for ${watch} us)`, async () => {
    const [world, queue] = await World.start(watch);
    await using _ = world;
    await world.map(queue, 5);
    world.send(queue, unmapPage(5));
    await world.held();
    assertEquals(await world.answers(queue, 1, 30), 0);
    assertEquals(world.listener.calls, ["invalidate 5 5"]);
    assertEquals([world.device.holds, world.device.iotlbListeners.waiting], [true, 1]);
    world.listener.acknowledge();
    assertEquals(await world.answers(queue, 1), 1);
    assertEquals(queue.driver.usedLength, 4);
    assertEquals(world.device.holds, false);
  });
}

for (const ring of RING_KINDS) {
  Deno.test(`nothing of an UNMAP's answer is seen before the listener has acknowledged (${nameOf(ring)})`, async () => {
    const [world, queue] = await World.start(2000, ring);
    await using _ = world;
    await world.map(queue, 5, 6);
    // The first is answered with fewer bytes than its buffer has: a batch of answers in order ends with it.
    world.send(queue, new Uint8Array(8).fill(0xff), unmapPage(5), mapPage(7), unmapPage(6));
    await world.held();
    assertEquals(await world.answers(queue, 4, 20), 0);
    assertEquals([world.device.holds, world.listener.owed], [true, 2]);
    assertEquals(queue.callEvent.drain(), false);
    world.listener.acknowledge();
    assertEquals(await world.answers(queue, 4), 4);
    assertEquals(await world.answers(queue, 1, 20), 0, "each once");
  });

  Deno.test(`answers that are held when the ring's memory is to go are given first, once (${nameOf(ring)})`, async () => {
    const [world, queue] = await World.start(2000, ring);
    await using _ = world;
    await world.map(queue, 5, 6);
    for (const page of [5, 6]) {
      world.send(queue, unmapPage(page), unmapPage(page));
      await world.held();
      const { done, isDone } = watched(world.frontEnd.withdrawMemory(world.ring));
      assertEquals(await world.answers(queue, 1, 20), 0);
      assertEquals([isDone(), world.device.holds], [false, true]);
      world.listener.acknowledge();
      await done;
      assertEquals(queue.errorEvent.drain(), true);
      await world.frontEnd.returnMemory(world.ring);
      assertEquals(await world.answers(queue, 2), 2);
      assertEquals(queue.driver.usedLength, 4);
      assertEquals(await world.answers(queue, 1, 20), 0, "each once");
    }
    world.send(queue, mapPage(5));
    assertEquals(await world.answers(queue, 1), 1, "the queue goes on behind them");
  });
}

Deno.test("the UNMAPs of one batch share one wait, and requests behind them wait, too", async () => {
  const [world, queue] = await World.start();
  await using _ = world;
  await world.map(queue, 5, 6, 9);
  world.send(queue, unmapPage(5), unmapPage(6), unmapPage(9));
  await world.held();
  assertEquals(await world.answers(queue, 3, 20), 0);
  assertEquals(world.listener.calls, ["invalidate 5 5", "invalidate 6 6", "invalidate 9 9"]);
  world.send(queue, mapPage(7));
  assertEquals(await world.answers(queue, 4, 20), 0);
  assertEquals(world.listener.calls.length, 3, "nothing more is taken meanwhile");
  world.listener.acknowledge();
  assertEquals(await world.answers(queue, 4), 4);
  assertEquals(world.listener.calls[3], "mapped 7 7");
});

Deno.test("MAP, ATTACH and DETACH are told; a refused MAP and an UNMAP of nothing are not", async () => {
  const [world, queue] = await World.start();
  await using _ = world;
  world.send(queue, attachRequest(1, ENDPOINT), mapPage(5), mapPage(5), unmapPage(8));
  await world.held();
  world.listener.acknowledge();
  assertEquals(await world.answers(queue, 4), 4);
  assertEquals(world.listener.calls, ["invalidate all", "mapped all", "mapped 5 5"]);
  world.listener.calls.length = 0;
  world.send(queue, detachRequest(1, ENDPOINT));
  await world.held();
  world.listener.acknowledge();
  assertEquals(await world.answers(queue, 1), 1);
  assertEquals(world.listener.calls, ["invalidate all", "mapped all"]);
});

Deno.test("a queue that is stopped while answers are held: they are published first", async () => {
  const [world, queue] = await World.start();
  await using _ = world;
  await world.map(queue, 5, 6);
  world.send(queue, unmapPage(5), unmapPage(6));
  await world.held();
  const stopped = world.frontEnd.stopQueue(queue);
  world.listener.acknowledge();
  const base = await stopped;
  assertEquals(world.device.holds, false);
  assertEquals(await world.answers(queue, 3, 20), 2, "each once");
  await world.frontEnd.resumeQueue(queue, base);
  world.send(queue, mapPage(5));
  assertEquals(await world.answers(queue, 1), 1, "the queue goes on behind them");
  assertEquals(await world.answers(queue, 1, 20), 0);
});

Deno.test("a queue that is moved while answers are held answers where it was", async () => {
  const [world, queue] = await World.start();
  await using _ = world;
  await world.map(queue, 5);
  world.send(queue, unmapPage(5));
  await world.held();
  const { descriptors, driverArea, deviceArea } = queue.driver;
  const place = {
    index: 0,
    driver: { descriptors: descriptors + 0x40000, driverArea, deviceArea },
  };
  const moved = world.frontEnd.setQueueAddress(place as FrontEndQueue);
  world.listener.acknowledge();
  await moved;
  assertEquals(world.device.holds, false);
  assertEquals(await world.answers(queue, 2, 20), 1);
});

Deno.test("reset and bypass are answered when the IOTLB listener has acknowledged, and everything else is served meanwhile", async () => {
  const [world, queue] = await World.start();
  await using _ = world;
  await world.map(queue, 5);
  const written = watched(world.frontEnd.writeConfig(36, Uint8Array.of(1)));
  await until(() => world.listener.owed > 0, "the IOTLB listener is told");
  assertEquals(world.listener.calls, ["invalidate all", "mapped all"]);
  world.send(queue, unmapPage(5));
  assertEquals(await world.answers(queue, 1, 20), 0, "no request is taken meanwhile");
  assertEquals([written.isDone(), world.listener.owed], [false, 1]);
  world.listener.acknowledge();
  await written.done;
  await world.held();
  const reset = watched(world.frontEnd.resetDevice());
  assertEquals(await world.answers(queue, 1, 20), 0);
  assertEquals(reset.isDone(), false, "messages wait for answers that are held");
  world.listener.acknowledge();
  assertEquals(await world.answers(queue, 1), 1);
  await until(() => world.listener.owed > 0, "the IOTLB listener is told of the reset");
  assertEquals(reset.isDone(), false);
  world.listener.acknowledge();
  await reset.done;
  assertEquals([world.device.holds, world.device.iotlbListeners.waiting], [false, 0]);
  assertEquals(world.listener.calls.slice(2), [
    "invalidate 5 5",
    "invalidate all",
    "invalidate all",
    "mapped all",
  ]);
});

Deno.test("a front end that goes while answers are held leaves nothing held", async () => {
  const [world, queue] = await World.start();
  await using _ = world;
  await world.map(queue, 5);
  world.send(queue, unmapPage(5));
  await world.held();
  world.frontEnd.close();
  world.listener.acknowledge();
  await until(() => !world.connected, "the session has ended");
  assertEquals(world.device.holds, false);
});

for (const ring of RING_KINDS) {
  Deno.test(`a session that is ended while answers are held is not waited with: they are never given (${nameOf(ring)})`, async () => {
    const [world, queue] = await World.start(2000, ring);
    await using _ = world;
    await world.map(queue, 5);
    world.send(queue, unmapPage(5));
    await world.held();
    await world.stop();
    assertEquals([world.connected, world.device.holds], [false, false]);
    assertEquals(queue.driver.reap(), false, "nothing says that the IOTLB listener has let go");
    assert(world.listener.owed > 0, "it has not");
  });
}

Deno.test("a ring that breaks while answers are held is reported behind them, and nothing waits", async () => {
  const [world, queue] = await World.start();
  await using _ = world;
  await world.map(queue, 5);
  world.send(queue, unmapPage(5));
  await world.held();
  // The index of the available ring: more new chains than the ring has entries.
  world.frontEnd.memory.resolve(queue.driver.driverArea + 2, 2, true);
  const { memory } = world.frontEnd;
  new DataView(memory.bytes.buffer).setUint16(memory.bytes.byteOffset + memory.offset, 999, true);
  queue.kickEvent.signal();
  const looks = world.listener.looks;
  await until(() => world.listener.looks > looks + 20, "everything else is served");
  assertEquals([world.device.holds, world.listener.owed], [true, 1]);
  assertEquals([queue.driver.reap(), queue.errorEvent.drain()], [false, false]);
  world.listener.acknowledge();
  await until(() => queue.errorEvent.drain(), "the ring is reported");
  assertEquals([await world.answers(queue, 1), world.device.holds], [1, false]);
});

Deno.test("an acknowledgement that nothing waits for is a fault of ours", () => {
  const listeners = new IotlbListeners();
  listeners.expect();
  listeners.expect();
  listeners.arrived();
  assertThrows(
    () => listeners.arrived(2),
    Error,
    "Cannot take 2 acknowledgements: 1 are outstanding",
  );
  assertEquals(listeners.waiting, 1);
});
