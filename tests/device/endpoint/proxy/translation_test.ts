/** What a back end behind the IOMMU is given, and when the guest is answered. */
import { assert, assertEquals } from "@std/assert";
import { detachRequest } from "../../../../device/iommu/driver_requests.ts";
import { Request } from "../../../../device/vhost_user/mod.ts";
import {
  attach,
  ENDPOINT,
  invalidate,
  map,
  MEMORY,
  ProxyWorld,
  unmap,
  update,
  USER,
} from "./proxy_world.ts";

const READ = 1;
const WRITE = 2;
/** Flags of a fault report: what was tried, and that it has an address. */
const F_ADDRESS = 1 << 8;
const ALL_PAGES = MEMORY / 4096;

Deno.test("a MAP is pushed, its runs merged, and answered when the back end has it", async () => {
  await using world = await ProxyWorld.start();
  const [, backEnd] = await world.session();
  assertEquals(await world.request(attach()), [0]);
  backEnd.takeTold();
  backEnd.manner = "when told";
  world.send(map(0x1000, 3, 5));
  await world.held(backEnd);
  assertEquals(backEnd.takeTold(), [update(0x1000, 3, 5)]);
  backEnd.acknowledge();
  assertEquals(await world.answers(1), 1);
  assertEquals(backEnd.translate(0x1000 * 4096 + 7, READ), USER + 3 * 4096 + 7);
});

Deno.test("an UNMAP is answered when the back end has let go; what follows it directly stays", async () => {
  await using world = await ProxyWorld.start();
  const [, backEnd] = await world.session();
  await world.request(attach(), map(10, 1), map(11, 20), map(13, 30));
  backEnd.takeTold();
  backEnd.manner = "when told";
  world.send(unmap(10));
  await world.held(backEnd);
  assertEquals(backEnd.takeTold(), ["invalidate a000+fff"], "it does not touch what follows");
  backEnd.acknowledge();
  assertEquals(await world.answers(1), 1);
  assertEquals([backEnd.translate(10 * 4096, READ), backEnd.translate(11 * 4096 - 1, READ)], [
    undefined,
    undefined,
  ]);
  assertEquals(backEnd.translate(11 * 4096, READ), USER + 20 * 4096);
  backEnd.manner = "at once";
  await world.request(unmap(11));
  assertEquals(backEnd.takeTold(), [invalidate(11)]);
  assertEquals([world.counters.invalidations, world.counters.acknowledged], [3, 3]);
});

Deno.test("the UNMAPs of a batch share one wait", async () => {
  await using world = await ProxyWorld.start();
  const [, backEnd] = await world.session();
  await world.request(attach(), map(10, 1), map(20, 2), map(30, 3));
  const { waits } = world.counters;
  backEnd.takeTold();
  backEnd.manner = "when told";
  world.send(unmap(10), unmap(20), unmap(30));
  await world.held(backEnd);
  assertEquals(backEnd.takeTold(), [invalidate(10), invalidate(20), invalidate(30)]);
  backEnd.acknowledge(2);
  await world.held(backEnd);
  backEnd.acknowledge();
  assertEquals(await world.answers(3), 3);
  assertEquals(world.counters.waits, waits + 1);
});

Deno.test("a miss is answered from the tables, as far as permission and mapping go", async () => {
  await using world = await ProxyWorld.start();
  const [frontEnd, backEnd] = await world.session();
  await world.request(attach(), map(10, 1, 3, READ), map(13, 4, 1, READ));
  backEnd.takeTold();
  backEnd.miss(11 * 4096 + 5, READ);
  await world.served(frontEnd, backEnd);
  assertEquals(
    backEnd.takeTold(),
    [update(11, 2, 2, READ)],
    "from the page on, within its mapping",
  );
  backEnd.miss(11 * 4096 + 5, WRITE);
  await world.served(frontEnd, backEnd);
  assertEquals(backEnd.takeTold(), []);
  assertEquals(await world.takeFault(), [WRITE | F_ADDRESS, 11 * 4096 + 5]);
  assertEquals([world.counters.misses, world.counters.faults], [2, 1]);
  assertEquals(world.device.endpoints.seen(ENDPOINT)?.faults, 1);
});

Deno.test("a miss that cannot be answered is a fault, remembered, and answered by the MAP that makes it possible", async () => {
  await using world = await ProxyWorld.start();
  const [, backEnd] = await world.session();
  await world.request(attach());
  backEnd.miss(700 * 4096, READ | WRITE);
  assertEquals(await world.takeFault(), [READ | WRITE | F_ADDRESS, 700 * 4096]);
  backEnd.takeTold();
  await world.request(map(100, 0, 50));
  assertEquals(backEnd.takeTold(), [update(100, 0, 50)]);
  await world.request(map(699, 9, 2));
  assertEquals(backEnd.takeTold(), [update(699, 9, 2)]);
  assertEquals(world.counters.lateUpdates, 1);
});

Deno.test("of a mapping too large to be pushed whole, the piece that was missed before is given", async () => {
  await using world = await ProxyWorld.start();
  const [, backEnd] = await world.session(0, [[0, 4096 * 4096]]);
  await world.request(attach());
  backEnd.miss(3000 * 4096, READ);
  await world.takeFault();
  backEnd.takeTold();
  await world.request(map(0x200, 0x100, 3000));
  const told = backEnd.takeTold();
  assertEquals(told.length, 2);
  assertEquals(told[1].split(" ")[1].split("+")[0], (3000 * 4096).toString(16));
  assertEquals(
    backEnd.translate(3000 * 4096, READ),
    USER + (3000 - 0x200 + 0x100) * 4096,
    "the piece that holds the address, not the one at the beginning",
  );
});

Deno.test("a mapping that spans memory regions is given region by region; what is no memory is left out", async () => {
  await using world = await ProxyWorld.start();
  const [frontEnd, backEnd] = await world.session(0, [[0, 8 * 4096], [8 * 4096, 8 * 4096]]);
  await world.request(attach());
  backEnd.takeTold();
  await world.request(map(50, 4, 20));
  assertEquals(backEnd.takeTold(), [update(50, 4, 4), update(54, 8, 8)]);
  backEnd.miss(53 * 4096, READ);
  backEnd.miss(56 * 4096, READ);
  await world.served(frontEnd, backEnd);
  assertEquals(backEnd.takeTold(), [update(53, 7, 1), update(56, 10, 6)]);
  backEnd.miss(65 * 4096, READ);
  assertEquals(await world.takeFault(), [READ | F_ADDRESS, 65 * 4096]);
});

Deno.test("memory above 4 GiB is memory", async () => {
  await using world = await ProxyWorld.start();
  const [, backEnd] = await world.session(0, [[0, MEMORY], [2 ** 32, MEMORY]]);
  await world.request(attach());
  backEnd.takeTold();
  await world.request(map(5, 2 ** 20 + 7, 2));
  assertEquals(backEnd.takeTold(), [update(5, 2 ** 20 + 7, 2)]);
});

Deno.test("what may only be written may be read, too, unless that is to be kept", async () => {
  for (const writeOnly of ["widen", "keep"] as const) {
    await using world = await ProxyWorld.start({ writeOnly });
    const [frontEnd, backEnd] = await world.session();
    await world.request(attach());
    backEnd.takeTold();
    await world.request(map(5, 7, 1, WRITE));
    const permission = writeOnly === "widen" ? READ | WRITE : WRITE;
    assertEquals(backEnd.takeTold(), [update(5, 7, 1, permission)], writeOnly);
    backEnd.miss(5 * 4096, READ | WRITE);
    await world.served(frontEnd, backEnd);
    assertEquals(backEnd.takeTold().length, writeOnly === "widen" ? 1 : 0, writeOnly);
  }
});

Deno.test("ATTACH gives what the domain has; DETACH takes everything, and both wait", async () => {
  await using world = await ProxyWorld.start();
  const [, backEnd] = await world.session();
  await world.request(attach(1, 99), map(10, 1), map(20, 2));
  assertEquals(backEnd.takeTold(), []);
  backEnd.manner = "when told";
  world.send(attach());
  await world.held(backEnd);
  assertEquals(backEnd.takeTold(), [invalidate(), update(10, 1), update(20, 2)]);
  backEnd.acknowledge();
  assertEquals(await world.answers(1), 1);
  world.send(attach(2));
  await world.held(backEnd);
  assertEquals(backEnd.takeTold(), [invalidate()], "the other domain is empty");
  backEnd.acknowledge();
  assertEquals(await world.answers(1), 1);
  world.send(detachRequest(2, ENDPOINT));
  await world.held(backEnd);
  assertEquals(backEnd.takeTold(), [invalidate()]);
  backEnd.acknowledge();
  assertEquals(await world.answers(1), 1);
  assertEquals(backEnd.entries, []);
});

Deno.test("untranslated, memory is given as it is: in bypass, and in a bypass domain", async () => {
  await using world = await ProxyWorld.start({ bypass: true });
  const [frontEnd, backEnd] = await world.session();
  assertEquals(backEnd.takeTold(), [update(0, 0, ALL_PAGES)]);
  await world.request(attach());
  assertEquals(backEnd.takeTold(), [invalidate()]);
  await world.request(attach(2, ENDPOINT, 1));
  assertEquals(backEnd.takeTold(), [invalidate(), update(0, 0, ALL_PAGES)]);
  backEnd.miss(3 * 4096, WRITE);
  await world.served(frontEnd, backEnd);
  assertEquals(backEnd.takeTold(), [update(3, 3, ALL_PAGES - 3)]);
  assertEquals(world.counters.identityUpdates, 3);
});

Deno.test("everything is given again with new memory, and taken before memory goes", async () => {
  await using world = await ProxyWorld.start();
  const [frontEnd, backEnd] = await world.session();
  await world.request(attach(), map(10, 1), map(20, 2));
  backEnd.takeTold();
  const region = await frontEnd.addMemory(MEMORY, MEMORY);
  await world.served(frontEnd, backEnd);
  assertEquals(backEnd.takeTold(), [update(10, 1), update(20, 2)]);
  await world.request(map(30, ALL_PAGES + 1));
  assertEquals(backEnd.takeTold(), [update(30, ALL_PAGES + 1)]);
  await frontEnd.removeMemory(region);
  await world.served(frontEnd, backEnd);
  assertEquals(backEnd.takeTold(), [invalidate(), update(10, 1), update(20, 2)]);
  assertEquals(
    backEnd.messages.filter(({ request }) => request === Request.SET_MEM_TABLE).length,
    3,
  );
});

Deno.test("memory slots come and go one by one", async () => {
  await using world = await ProxyWorld.start();
  const [frontEnd, backEnd] = await world.join();
  backEnd.offers |= 1 << 15;
  await frontEnd.negotiate();
  const first = await frontEnd.addMemory(0, MEMORY);
  await frontEnd.addMemory(MEMORY, MEMORY);
  await world.request(attach(), map(10, 1), map(20, ALL_PAGES));
  assertEquals(backEnd.takeTold().slice(-2), [update(10, 1), update(20, ALL_PAGES)]);
  await frontEnd.removeMemory(first);
  await frontEnd.ask(Request.GET_QUEUE_NUM);
  assertEquals(backEnd.takeTold(), [invalidate(), update(20, ALL_PAGES)]);
});

Deno.test("several proxied endpoints of one domain: an UNMAP waits for all of them", async () => {
  await using world = await ProxyWorld.start({ more: [32] });
  const [, one] = await world.session(0);
  const [, other] = await world.session(1);
  await world.request(attach(), attach(1, 32), map(10, 1));
  one.takeTold();
  assertEquals(other.takeTold().at(-1), update(10, 1));
  one.manner = "when told";
  other.manner = "when told";
  world.send(unmap(10));
  await world.held(one, other);
  assertEquals([one.takeTold(), other.takeTold()], [[invalidate(10)], [invalidate(10)]]);
  one.acknowledge();
  await world.held(one, other);
  other.acknowledge();
  assertEquals(await world.answers(1), 1);
});

Deno.test("while an answer waits, misses and messages of both sides are served", async () => {
  await using world = await ProxyWorld.start();
  const [frontEnd, backEnd] = await world.session();
  await world.request(attach(), map(10, 1), map(20, 2));
  backEnd.takeTold();
  backEnd.manner = "when told";
  world.send(unmap(10));
  await world.held(backEnd);
  backEnd.miss(20 * 4096, READ);
  backEnd.miss(10 * 4096, READ);
  assertEquals((await frontEnd.ask(Request.GET_QUEUE_NUM)).getUint32(0, true), 2);
  await world.served(frontEnd, backEnd);
  assertEquals(
    backEnd.takeTold(),
    [invalidate(10), update(20, 2)],
    "what is unmapped is not given",
  );
  assertEquals(await world.takeFault(), [READ | F_ADDRESS, 10 * 4096]);
  assert(world.device.holds);
  backEnd.acknowledge();
  assertEquals(await world.answers(1), 1);
});

Deno.test("without ACCESS_PLATFORM nothing is translated; when it comes back, everything is new", async () => {
  await using world = await ProxyWorld.start();
  const [frontEnd, backEnd] = await world.session();
  await world.request(attach(), map(10, 1));
  backEnd.takeTold();
  await frontEnd.setFeatures(frontEnd.featuresLow, 1);
  await world.request(unmap(10), map(11, 2));
  assertEquals(backEnd.takeTold(), []);
  await frontEnd.setFeatures(frontEnd.featuresLow, 3);
  await world.served(frontEnd, backEnd);
  assertEquals(backEnd.takeTold(), [invalidate(), update(11, 2)]);
});

Deno.test("a miss while a loaded state is built again waits for it, and is no fault", async () => {
  await using world = await ProxyWorld.start();
  const { device, counters } = world;
  // It is built before the back end's domain.
  device.iommu.attach(0, 7, false);
  const domain = device.iommu.domain(0)!;
  for (let i = 0; i < 30_000; i++) device.iommu.map(domain, 2 * i, 2 * i, 1, 3);
  assertEquals(await world.request(attach(), map(10, 1)), [0, 0]);
  const [frontEnd, backEnd] = await world.session();
  assertEquals(device.loadState(device.saveState()), undefined);
  const size = 1 << 20;
  const region = { guestAddress: 2 ** 30, size, buffer: new ArrayBuffer(size), offset: 0 };
  device.memoryAdded(region);
  assertEquals(device.queueBegins(0, "loaded"), { isLater: true });
  const { misses } = counters;
  backEnd.miss(10 * 4096, READ);
  await world.served(frontEnd, backEnd);
  assertEquals([counters.misses, counters.faults], [misses + 1, 0]);
  assertEquals([device.isRebuilding, backEnd.told.at(-1)], [false, update(10, 1)]);
  assertEquals(device.queueBegins(0, "loaded"), undefined);
  device.memoryRemoved(region);
});
