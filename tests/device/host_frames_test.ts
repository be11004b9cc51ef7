/**
 * A device whose tables hold host-physical frames (`serve --frames host`), over real memory and the real page map: what
 * tables lead to, what the device's own endpoints reach, and what becomes of it all when memory goes.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { ApiError } from "../../device/api/mod.ts";
import { dma } from "../../device/api/dma.ts";
import { moved } from "../../device/api/moved.ts";
import { translate } from "../../device/api/translate.ts";
import { Work } from "../../device/api/work.ts";
import { movedText, translationText } from "../../device/command/inspect_text.ts";
import { attachRequest } from "../../device/iommu/driver_requests.ts";
import { EndpointMemory } from "../../device/endpoint/endpoint_memory.ts";
import { Descriptor, mapMemoryFile } from "../../device/host/mod.ts";
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE } from "../../device/host/constants.ts";
import { cString, libc } from "../../device/host/libc.ts";
import { Turn } from "../../device/iommu/turn.ts";
import { S_INVAL, S_NOMEM, S_OK, S_RANGE } from "../../device/iommu/wire.ts";
import { hex } from "../bytes.ts";
import { InProcessGuest } from "./in_process_guest.ts";
import { frameOf, seesFrames } from "./host/page_frames.ts";
import { ENDPOINT, IOVA, Module, PAGE, PAGES, RAM, SIZE, World } from "./host_frames_world.ts";

/** Gives pages back to the host, as a VMM does for a balloon. */
function punchHole(module: Module, page: number, count: number): void {
  const mode = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE;
  const { number } = module.file;
  assertEquals(libc().fallocate(number, mode, BigInt(page * PAGE), BigInt(count * PAGE)), 0);
}

/** A test that needs to see frames. */
function rootTest(name: string, fn: () => void): void {
  Deno.test({ name, ignore: !seesFrames, fn });
}

rootTest(
  "tables lead to the host frames behind what the guest maps, and translate shows both addresses",
  () => {
    using module = new Module();
    using world = new World();
    world.guest.device.memoryAdded(module.region);
    assertEquals(world.map(IOVA, RAM + 5 * PAGE, 40), S_OK);
    for (let page = 0; page < 40; page++) {
      const answer = world.translate(IOVA + page * PAGE + 0x123);
      assertEquals(answer.phys, hex(module.frame(5 + page) * PAGE + 0x123));
      assertEquals(answer.guest, hex(RAM + (5 + page) * PAGE + 0x123));
      assertEquals(answer.moved, undefined);
    }
    const { guest } = world.translate(IOVA);
    const query = new URLSearchParams({ endpoint: String(ENDPOINT), iova: String(IOVA) });
    const text = translationText(translate(world.context, query));
    assertEquals(text.split("\n")[1], `  host-physical; guest-physical ${guest}`);
    assertEquals(world.unmap(IOVA, 40), S_OK);
    assert("fault" in world.translate(IOVA));
    assertEquals(world.guest.device.guest.pinnedPages, 0);
    world.guest.device.memoryRemoved(module.region);
  },
);

rootTest("an endpoint's own accesses reach guest memory through host frames", () => {
  using module = new Module();
  using world = new World();
  const { device } = world.guest;
  world.guest.addMemory(module.region);
  module.bytes.set([1, 2, 3], 7 * PAGE);
  // Two mappings that touch each other and lead to places apart.
  assertEquals(world.map(IOVA, RAM + 7 * PAGE, 1), S_OK);
  assertEquals(world.map(IOVA + PAGE, RAM + 2 * PAGE, 1), S_OK);
  const memory = new EndpointMemory(device, ENDPOINT, device.memory);
  memory.keep(IOVA, PAGE, true);
  assertEquals([memory.pins, memory.resolve(IOVA, 3, false)], [1, 3]);
  assertEquals([...memory.bytes.subarray(memory.offset, memory.offset + 3)], [1, 2, 3]);
  const body = { endpoint: ENDPOINT, iova: IOVA + PAGE - 2, access: "w", data: "aabbccdd" };
  assertEquals(dma(world.context, body), {});
  assertEquals([...module.bytes.subarray(8 * PAGE - 2, 8 * PAGE)], [0xaa, 0xbb]);
  assertEquals([...module.bytes.subarray(2 * PAGE, 2 * PAGE + 2)], [0xcc, 0xdd]);
  memory.close();
  world.guest.removeMemory(module.region);
});

rootTest(
  "an endpoint in bypass, attached to nothing or by a flag, goes by guest addresses as ever",
  () => {
    using world = new World();
    const attach = attachRequest(7, 32);
    new DataView(attach.buffer).setUint32(12, 1, true);
    assertEquals(world.guest.request(attach, 4).bytes[0], S_OK);
    const answer = world.translate(0x1234, 32);
    assertEquals([answer.phys, answer.guest, answer.format], ["0x1234", undefined, "bypass"]);
  },
);

rootTest(
  "a MAP of what is no RAM is refused: a number of the guest's never becomes a host frame",
  () => {
    using module = new Module();
    using world = new World();
    world.guest.device.memoryAdded(module.region);
    for (const [phys, pages] of [[RAM - PAGE, 1], [RAM + SIZE, 1], [RAM - PAGE, 2], [RAM, 65]]) {
      assertEquals(world.map(IOVA, phys, pages), S_RANGE);
      assert("fault" in world.translate(IOVA));
    }
    assertEquals(world.guest.device.guest.pinnedPages, 0);
    world.guest.device.memoryRemoved(module.region);
  },
);

rootTest("host frames are charged to the budget, each once", () => {
  using module = new Module();
  using world = new World(4 * PAGE);
  const { device } = world.guest;
  device.memoryAdded(module.region);
  assertEquals(world.map(IOVA, RAM, 5), S_NOMEM);
  assertEquals(world.map(IOVA, RAM, 4), S_OK);
  assertEquals(world.map(IOVA + SIZE, RAM + PAGE, 3), S_OK);
  assertEquals(world.map(IOVA + 2 * SIZE, RAM + 4 * PAGE, 1), S_NOMEM);
  assertEquals(world.map(IOVA, RAM, 1), S_INVAL);
  assertEquals([device.guest.pinnedPages, world.unmap(IOVA, 4)], [4, S_OK]);
  assertEquals(world.map(IOVA + 2 * SIZE, RAM + 4 * PAGE, 1), S_OK);
  device.memoryRemoved(module.region);
  assertEquals(device.guest.pinnedPages, 0);
});

rootTest(
  "memory that goes takes its mappings with it: IOTLB listeners hear of it, accesses fault, and UNMAP is answered",
  () => {
    using module = new Module();
    using other = new Module(RAM + SIZE);
    using world = new World();
    const { device } = world.guest;
    assertEquals(world.guest.request(attachRequest(2, 32), 4).bytes[0], S_OK);
    world.guest.addMemory(module.region);
    world.guest.addMemory(other.region);
    assertEquals(world.map(IOVA, RAM, 4), S_OK);
    assertEquals(world.map(IOVA + SIZE, RAM + SIZE - PAGE, 2), S_OK, "across both");
    assertEquals(world.map(IOVA + 2 * SIZE, RAM + SIZE + PAGE, 2), S_OK);
    assertEquals(world.map(IOVA, RAM + 9 * PAGE, 1, 2), S_OK);
    const memory = new EndpointMemory(device, ENDPOINT, device.memory);
    memory.keep(IOVA, PAGE, true);
    assert(memory.resolve(IOVA, 8, true) > 0);
    const told: [number, number][] = [];
    const listener = {
      invalidate: (first: number, last: number) => {
        told.push([first, last]);
      },
      invalidateAll() {},
    };
    device.iotlbListeners.add(ENDPOINT, listener);
    const { generation } = memory;
    world.guest.removeMemory(module.region);
    device.iotlbListeners.remove(ENDPOINT, listener);
    const first = IOVA / PAGE;
    assertEquals(told, [[first, first + 3], [first + PAGES, first + PAGES + 1]]);
    assert(memory.generation !== generation && memory.pins === 0);
    assertEquals([memory.resolve(IOVA, 8, true), memory.faults], [0, 1]);
    for (const iova of [IOVA, IOVA + SIZE, IOVA + SIZE + PAGE]) {
      assert("fault" in world.translate(iova));
    }
    assert("fault" in world.translate(IOVA, 32));
    const kept = world.translate(IOVA + 2 * SIZE);
    assertEquals(kept.phys, hex(other.frame(1) * PAGE));
    assertEquals([device.guest.pinnedPages, world.unmap(IOVA, 4)], [2, S_OK]);
    // Other memory at the same place has frames of its own.
    using next = new Module();
    world.guest.addMemory(next.region);
    assertEquals(world.map(IOVA, RAM, 4), S_OK);
    assertEquals(world.translate(IOVA + PAGE).phys, hex(next.frame(1) * PAGE));
    // A mapping that only ends in what goes.
    assertEquals(world.map(IOVA + SIZE, RAM + SIZE - PAGE, 2), S_OK);
    assertEquals(device.iommu.mappingCount, 3);
    world.guest.removeMemory(other.region);
    assert("fault" in world.translate(IOVA + SIZE));
    assertEquals([device.iommu.mappingCount, device.guest.pinnedPages], [1, 4]);
    memory.close();
    world.guest.removeMemory(next.region);
    assertEquals([device.iommu.mappingCount, device.guest.pinnedPages], [0, 0]);
  },
);

rootTest("memory that goes while domains are ending takes what they still hold with it", () => {
  using module = new Module();
  using world = new World();
  const { device } = world.guest;
  device.memoryAdded(module.region);
  const count = 5000;
  for (let i = 0; i < count; i++) world.map(IOVA + i * PAGE, RAM + i % PAGES * PAGE, 1);
  assertEquals([device.iommu.mappingCount, device.guest.pinnedPages], [count, PAGES]);
  device.reset("device");
  assert(device.iommu.isEnding, "it takes several pieces");
  device.memoryRemoved(module.region);
  assertEquals(device.keepsMemory(module.region, () => {}), true);
  while (device.messagesWait) device.work(new Turn());
  assertEquals([device.iommu.mappingCount, device.guest.pinnedPages], [0, 0]);
});

rootTest("a page that has got another frame is shown as moved", () => {
  using module = new Module();
  using world = new World();
  const { device } = world.guest;
  device.memoryAdded(module.region);
  assertEquals(world.map(IOVA, RAM, 2), S_OK);
  const before = world.translate(IOVA);
  // A VMM's balloon gives a page back: its file has a hole, and another frame with the next use.
  punchHole(module, 0, 1);
  assertEquals([world.translate(IOVA).phys, world.translate(IOVA).moved], [before.phys, null]);
  const query = new URLSearchParams({ endpoint: String(ENDPOINT), iova: String(IOVA) });
  const lines = translationText(translate(world.context, query)).split("\n");
  assertEquals(lines[2], "  moved: the kernel has it at no frame now");
  assertEquals(world.translate(IOVA + PAGE).moved, undefined);
  const list = world.moved();
  assertEquals(list, [
    { domain: 1, iova: hex(IOVA), guest: hex(RAM), phys: String(before.phys), now: null },
  ]);
  assertEquals(movedText(list[0]).endsWith(`guest-physical ${hex(RAM)}: no frame now`), true);
  // The old frame is taken by something else first.
  using taken = new Module();
  taken.bytes.fill(1);
  new Uint8Array(module.mapping.buffer)[0] = 1;
  const after = world.translate(IOVA);
  assertEquals(after.phys, before.phys);
  if (hex(module.frame(0) * PAGE) !== before.phys) {
    assertEquals(after.moved, hex(module.frame(0) * PAGE));
  }
  assertEquals([world.unmap(IOVA, 2), world.map(IOVA, RAM, 2)], [S_OK, S_OK]);
  assertEquals(world.translate(IOVA).phys, hex(module.frame(0) * PAGE));
  device.memoryRemoved(module.region);
});

/** 2 MiB. */
const HUGE = 2 ** 21;
const freeHugePages = Number(
  /^HugePages_Free:\s*(\d+)$/m.exec(Deno.readTextFileSync("/proc/meminfo"))?.[1] ?? 0,
);

Deno.test({
  name: "memory in huge pages is mapped by large leaves, each at its host frame",
  ignore: !seesFrames || freeHugePages < 2,
  fn() {
    const MFD_HUGETLB = 4;
    using file = new Descriptor(libc().memfdCreate(cString("huge-test"), MFD_HUGETLB));
    assertEquals(libc().ftruncate(file.number, BigInt(2 * HUGE)), 0);
    using seen = mapMemoryFile(file, 0, 2 * HUGE);
    using mapping = mapMemoryFile(file, 0, 2 * HUGE);
    using world = new World();
    const { device } = world.guest;
    const region = { guestAddress: RAM, size: 2 * HUGE, buffer: mapping.buffer, offset: 0 };
    device.memoryAdded(region);
    assertEquals(world.map(IOVA, RAM, 2 * HUGE / PAGE), S_OK);
    for (let at = 0x123; at < 2 * HUGE; at += 31 * PAGE) {
      const answer = world.translate(IOVA + at);
      const phys = frameOf(seen.buffer, at) * PAGE + at % PAGE;
      assertEquals([answer.phys, answer.pageSize], [hex(phys), HUGE]);
      assertEquals([answer.guest, answer.moved], [hex(RAM + at), undefined]);
    }
    device.memoryRemoved(region);
    assertEquals(device.guest.pinnedPages, 0);
  },
});

rootTest("what has moved is looked for in all mappings, a little at a time", () => {
  using module = new Module();
  using world = new World();
  const { device } = world.guest;
  device.memoryAdded(module.region);
  assertEquals(world.moved(), []);
  for (let i = 0; i < 40; i++) assertEquals(world.map(IOVA + 2 * i * SIZE, RAM, PAGES), S_OK);
  assertEquals(world.moved(), []);
  punchHole(module, 3, 2);
  const list = world.moved();
  const expected = [...Array(80).keys()].map((i) =>
    IOVA + 2 * (i >> 1) * SIZE + (3 + i % 2) * PAGE
  );
  assertEquals(list.map(({ iova }) => Number(iova)), expected);
  device.memoryRemoved(module.region);
});

Deno.test("nothing can have moved where tables hold guest-physical addresses", () => {
  using guest = new InProcessGuest();
  const context = { device: guest.device, version: "0", connected: true };
  assertThrows(
    () => moved(context, new URLSearchParams(), new Work()),
    ApiError,
    "no host frames here",
  );
});

rootTest(
  "memory that does not begin at a page of the host is not mapped, and a line says so",
  () => {
    using module = new Module();
    using world = new World();
    const { device } = world.guest;
    // Guest pages and host pages are not in step.
    const region = {
      guestAddress: RAM,
      size: SIZE - PAGE,
      buffer: module.mapping.buffer,
      offset: 8,
    };
    device.memoryAdded(region);
    assertEquals(world.lines.at(-1)?.includes("it begins in the middle of a page"), true);
    assertEquals(world.map(IOVA, RAM, 1), S_RANGE);
    device.memoryRemoved(region);
    // They are, though neither is at the beginning of the region.
    const odd = { guestAddress: RAM + 8, size: SIZE - 8, buffer: module.mapping.buffer, offset: 8 };
    device.memoryAdded(odd);
    assertEquals([world.map(IOVA, RAM, 1), world.map(IOVA, RAM + PAGE, 1)], [S_RANGE, S_OK]);
    assertEquals(world.translate(IOVA).phys, hex(module.frame(1) * PAGE));
    device.memoryRemoved(odd);
  },
);
