import { assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  unmapRequest,
} from "../../../device/iommu/driver_requests.ts";
import { EndpointMemory } from "../../../device/endpoint/endpoint_memory.ts";
import { DirtyLog, readMemory, writeMemory } from "../../../vring/mod.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "../in_process_guest.ts";

/** Maps pages of domain 1: each of `pages` to the frame it is given. */
function mapPages(
  guest: InProcessGuest,
  pages: readonly (readonly [number, number])[],
  flags = 3,
): void {
  for (const [page, frame] of pages) {
    const virtStart = BigInt(page) * 4096n;
    guest.request(
      mapRequest({
        domain: 1,
        virtStart,
        virtEnd: virtStart + 4095n,
        physStart: BigInt(frame) * 4096n,
        flags,
      }),
      4,
    );
  }
}

/** A guest with endpoint 8 in domain 1, and that endpoint's view of memory. */
class Attached implements Disposable {
  readonly guest: InProcessGuest;
  readonly memory: EndpointMemory;

  constructor(bypass = false) {
    this.guest = new InProcessGuest({ ...DEFAULT_OPTIONS, bypass });
    this.guest.request(attachRequest(1, 8), 4);
    this.memory = new EndpointMemory(this.guest.device, 8, this.guest.device.memory);
  }

  [Symbol.dispose](): void {
    this.memory.close();
    this.guest.close();
  }
}

Deno.test("EndpointMemory reads and writes across scattered pages", () => {
  using attached = new Attached();
  const { guest, memory } = attached;
  mapPages(guest, [[0x10, 0x50], [0x11, 0x51], [0x12, 0x40], [0x13, 0x60]]);
  const bytes = Uint8Array.from({ length: 3 * 4096 }, (_, i) => i * 7);
  assertEquals(writeMemory(memory, 0x10800, bytes, 0, bytes.length), true);
  const back = new Uint8Array(bytes.length);
  assertEquals(readMemory(memory, 0x10800, back, 0, back.length), true);
  assertEquals(back, bytes);
  const physical = new Uint8Array(4096);
  readMemory(guest.device.memory, 0x40000, physical, 0, 4096);
  assertEquals(physical, bytes.slice(0x1800, 0x2800));
});

Deno.test("EndpointMemory logs each page of a write at its guest-physical page, in the log that is asked for", () => {
  using attached = new Attached();
  const { guest, memory } = attached;
  fc.assert(fc.property(
    fc.uniqueArray(fc.integer({ min: 0x20, max: 0xff }), { minLength: 8, maxLength: 8 }),
    fc.nat(8 * 4096 - 1),
    fc.integer({ min: 1, max: 3 * 4096 }),
    fc.boolean(),
    (frames, at, length, own) => {
      guest.request(unmapRequest(1, 0n, 2n ** 64n - 1n), 4);
      mapPages(guest, frames.map((frame, i) => [0x1000 + i, frame]));
      const bits = new Uint8Array(32);
      const others = new Uint8Array(32);
      guest.device.memory.dirtyLog = new DirtyLog(own ? others : bits);
      const end = Math.min(at + length, 8 * 4096);
      memory.written(0x1000 * 4096 + at, end - at, 0, own ? new DirtyLog(bits) : undefined);
      guest.device.memory.dirtyLog = null;
      const expected = new Uint8Array(32);
      for (let page = Math.floor(at / 4096); page * 4096 < end; page++) {
        expected[frames[page] >> 3] |= 1 << (frames[page] & 7);
      }
      assertEquals(bits, expected);
      assertEquals(others.every((byte) => byte === 0), true);
    },
  ));
});

Deno.test("EndpointMemory finds pages that follow each other in memory together", () => {
  using attached = new Attached();
  const { guest, memory } = attached;
  mapPages(guest, [[0x10, 0x50], [0x11, 0x51], [0x12, 0x53]]);
  assertEquals(memory.resolve(0x10100, 0x3000, false), 0x1f00);
  assertEquals(memory.resolve(0x10100, 0x10, true), 0x10);
});

Deno.test("EndpointMemory refuses what is not mapped so, and reports the fault", () => {
  using attached = new Attached();
  const { guest, memory } = attached;
  mapPages(guest, [[0x10, 0x50]], 1);
  assertEquals(memory.resolve(0x10000, 8, false), 8);
  assertEquals(memory.resolve(0x10000, 8, true), 0);
  assertEquals(memory.resolve(0x11ff8, 8, false), 0);
  assertEquals([memory.faults, guest.device.endpoints.seen(8)?.faults], [2, 2]);
  guest.offerEventBuffer(24);
  const report = guest.takeEvent(24)!;
  const view = new DataView(report.bytes.buffer);
  assertEquals([report.length, view.getUint32(0, true), view.getUint32(4, true)], [24, 2, 0x102]);
  assertEquals(view.getBigUint64(16, true), 0x10000n);
});

Deno.test("EndpointMemory drops a translation with the UNMAP that ends it", () => {
  using attached = new Attached();
  const { guest, memory } = attached;
  mapPages(guest, [[0x10, 0x50], [0x20, 0x51]]);
  assertEquals([memory.resolve(0x10000, 8, true), memory.resolve(0x20000, 8, true)], [8, 8]);
  guest.request(unmapRequest(1, 0x10000n, 0x10fffn), 4);
  assertEquals([memory.resolve(0x10000, 8, true), memory.resolve(0x20000, 8, true)], [0, 8]);
  guest.request(detachRequest(1, 8), 4);
  assertEquals(memory.resolve(0x20000, 8, true), 0);
});

Deno.test("EndpointMemory in bypass is guest memory itself, until bypass is switched off", () => {
  using guest = new InProcessGuest();
  const memory = new EndpointMemory(guest.device, 8, guest.device.memory);
  assertEquals(memory.resolve(0x5008, 8, true), 8);
  assertEquals(memory.offset, 0x5008);
  guest.device.writeConfig(Uint8Array.of(0), 36);
  assertEquals(memory.resolve(0x5008, 8, true), 0);
  guest.request(attachRequest(1, 8, 1), 4);
  assertEquals(memory.resolve(0x5008, 8, true), 8);
  guest.request(attachRequest(2, 8), 4);
  assertEquals(memory.resolve(0x5008, 8, true), 0);
  memory.close();
});

Deno.test("EndpointMemory changes its generation with the UNMAP of what is kept, and only then", () => {
  using attached = new Attached();
  const { guest, memory } = attached;
  mapPages(guest, [[0x10, 0x50], [0x11, 0x51], [0x20, 0x52]]);
  assertEquals(memory.resolve(0x10800, 0x1000, true), 0x1000);
  memory.keep(0x10800, 0x1000, true);
  assertEquals(memory.pins, 1);
  const generation = memory.generation;
  guest.request(unmapRequest(1, 0x20000n, 0x20fffn), 4);
  assertEquals([memory.generation, memory.pins], [generation, 1]);
  guest.request(unmapRequest(1, 0x11000n, 0x11fffn), 4);
  assertEquals([memory.generation > generation, memory.pins], [true, 0]);
  assertEquals(memory.resolve(0x11000, 8, true), 0);
});

Deno.test("EndpointMemory drops what is kept when its endpoint changes domains or loses its own", () => {
  using attached = new Attached();
  const { guest, memory } = attached;
  mapPages(guest, [[0x10, 0x50]]);
  memory.keep(0x10000, 64, false);
  let generation = memory.generation;
  guest.request(attachRequest(2, 8), 4);
  assertEquals([memory.generation > generation, memory.pins], [true, 0]);
  assertEquals(guest.device.iommu.domains.map(({ id }) => id), [2], "the old domain has ended");
  generation = memory.generation;
  guest.request(detachRequest(2, 8), 4);
  assertEquals(memory.generation > generation, true);
});

Deno.test("EndpointMemory takes any UNMAP for one of what is kept where that could not be pinned", () => {
  using attached = new Attached();
  const { guest, memory } = attached;
  mapPages(guest, [[0x10, 0x50], [0x20, 0x51]]);
  memory.keep(0x30000, 64, false);
  const generation = memory.generation;
  guest.request(unmapRequest(1, 0x20000n, 0x20fffn), 4);
  assertEquals([memory.generation > generation, memory.pins], [true, 0]);
});

Deno.test("EndpointMemory does not write by a translation that was found for a read", () => {
  using attached = new Attached();
  const { guest, memory } = attached;
  mapPages(guest, [[0x10, 0x50]]);
  memory.resolve(0x10000, 8, false);
  memory.resolve(0x10000, 8, false);
  assertEquals([memory.iotlb.hits, memory.iotlb.misses], [1, 1]);
  memory.resolve(0x10000, 8, true);
  memory.resolve(0x10000, 8, true);
  memory.resolve(0x10000, 8, false);
  assertEquals([memory.iotlb.hits, memory.iotlb.misses], [3, 2]);
});

Deno.test("EndpointMemory refuses a translation that leads to no memory", () => {
  using attached = new Attached();
  const { guest, memory } = attached;
  mapPages(guest, [[0x10, 0xfffff]]);
  assertEquals([memory.resolve(0x10000, 8, false), memory.faults], [0, 1]);
});

Deno.test("whatever was mapped and unmapped before, EndpointMemory sees the mappings as they are", () => {
  const step = fc.record({
    map: fc.boolean(),
    page: fc.nat(15),
    frame: fc.integer({ min: 64, max: 127 }),
  });
  fc.assert(fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
    using attached = new Attached();
    const { guest, memory } = attached;
    const model = new Map<number, number>();
    for (const { map, page, frame } of steps) {
      if (map) {
        mapPages(guest, [[page, frame]]);
        if (!model.has(page)) model.set(page, frame);
      } else {
        guest.request(unmapRequest(1, BigInt(page) * 4096n, BigInt(page) * 4096n + 4095n), 4);
        model.delete(page);
      }
      for (let at = 0; at < 16; at++) {
        const found = memory.resolve(at * 4096 + 16, 8, true);
        assertEquals(found, model.has(at) ? 8 : 0);
        if (found > 0) assertEquals(memory.offset, model.get(at)! * 4096 + 16);
      }
    }
  }));
});
