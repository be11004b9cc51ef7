/** Memory that goes while very many mappings lead to its host frames: in pieces, answered and given back at their end. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { attachRequest, mapRequest } from "../../../device/iommu/driver_requests.ts";
import { createMemoryFile, UnixStream } from "../../../device/host/mod.ts";
import { IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { Log } from "../../../device/log.ts";
import { UNSTABLE_PAGES_PER_PIECE } from "../../../device/iommu/piecewise_unmap.ts";
import { PIECE_WORK } from "../../../device/iommu/pieces.ts";
import { Turn } from "../../../device/iommu/turn.ts";
import { BackEnd, Connection, FLAG_NEED_REPLY, Request } from "../../../device/vhost_user/mod.ts";
import { READ } from "../../../pagetable/mod.ts";
import type { MemoryRegion } from "../../../vring/mod.ts";
import { isLong } from "../../long_mode.ts";
import { joined, longs, words } from "../../bytes.ts";
import { mappingsOf } from "../host/host_state.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "../in_process_guest.ts";
import { mapPages, Stepped, unmapPages } from "../stepped_guest.ts";
import { scriptedMemory } from "./scripted_memory.ts";

const PAGE = 4096;
const MIB = 2 ** 20;
/** Pages of a region. */
const PAGES = MIB / PAGE;
/** First pages of two regions of guest RAM. */
const [ONE, OTHER] = [0x1000, 0x2000];
const COUNT = 6 * PIECE_WORK;

function ram(firstPage: number): MemoryRegion {
  return { guestAddress: firstPage * PAGE, size: MIB, buffer: new ArrayBuffer(MIB), offset: 0 };
}

function options() {
  return { ...DEFAULT_OPTIONS, bypass: false, hostMemory: scriptedMemory() };
}

/** Maps single pages in domain 1, from page 0 on, to those of a region in turn. */
function fill({ iommu }: IommuDevice, region: number, first: number, count: number): void {
  const domain = iommu.domain(1)!;
  for (let i = first; i < first + count; i++) {
    assertEquals(iommu.map(domain, i, i, region + i % PAGES, 3), 0);
  }
}

/** Does the pieces that are left; none removes more than a bounded number of mappings. Returns how many there were. */
function finishPieces(device: IommuDevice): number {
  const turn = new Turn();
  let pieces = 0;
  for (; device.messagesWait; pieces++) {
    const before = device.iommu.mappingCount;
    turn.begin(0, 0);
    device.work(turn);
    assert(before - device.iommu.mappingCount <= PIECE_WORK, "a piece is bounded");
  }
  return pieces;
}

Deno.test("memory that very many mappings lead to is unmapped in pieces, and kept until the last", () => {
  const guest = new InProcessGuest(options());
  const { device } = guest;
  guest.request(attachRequest(1, 8), 4);
  const [one, other] = [ram(ONE), ram(OTHER)];
  device.memoryAdded(one);
  device.memoryAdded(other);
  fill(device, ONE, 0, COUNT);
  fill(device, OTHER, COUNT, 5);
  let released = 0;
  device.memoryRemoved(one);
  assertEquals([device.keepsMemory(one, () => released++), device.messagesWait], [true, true]);
  assert(device.iommu.mappingCount > COUNT / 2);
  // Other memory in its place waits for it, and so does the guest.
  const next = ram(ONE);
  device.memoryAdded(next);
  assertEquals([released, device.walk(8, COUNT - 1, READ).ok], [0, true]);
  const pieces = finishPieces(device);
  assert(pieces >= 8, `${pieces} pieces`);
  assertEquals([released, device.iommu.mappingCount, device.guest.pinnedPages], [1, 5, 5]);
  assertEquals([device.walk(8, 7, READ).ok, device.walk(8, COUNT, READ).ok], [false, true]);
  // The guest's memory was there before: next are the frames of the memory that has come.
  fill(device, ONE, 0, COUNT);
  device.walk(8, 0, READ);
  assertEquals(device.tableFrame, 4000);
  device.memoryRemoved(next);
  device.memoryAdded(one);
  const page = BigInt(COUNT + 5) * 4096n;
  const map = mapRequest({
    domain: 1,
    virtStart: page,
    virtEnd: page + 4095n,
    physStart: BigInt(ONE * PAGE),
    flags: 3,
  });
  assertEquals(device.messagesWait, true);
  assertEquals(guest.request(map, 4).bytes[0], 0);
  assertEquals([device.messagesWait, device.iommu.mappingCount], [false, 6], "it came behind them");
  device.walk(8, COUNT + 5, READ);
  assertEquals(device.tableFrame, 5000);
  device.memoryRemoved(one);
  assertEquals([device.keepsMemory(one, () => {}), device.messagesWait], [false, false]);
  device.memoryRemoved(other);
  assertEquals([device.iommu.mappingCount, device.guest.pinnedPages], [0, 0]);
  guest.close();
});

Deno.test("REM_MEM_REG is answered, and the memory unmapped, when nothing leads to it any more", () => {
  const mapped = mappingsOf("host-regions");
  const device = new IommuDevice(options());
  const [one, other] = UnixStream.pair();
  const backEnd = new BackEnd(one, device, { log: new Log("error") });
  const connection = new Connection(other);
  const REPLY_ACK = 1 << 3;
  const CONFIGURE_MEM_SLOTS = 1 << 15;
  using file = createMemoryFile("host-regions", MIB);
  const answered = () => {
    for (let burst = 0; burst < 10; burst++) {
      backEnd.onReadable();
      if (connection.read() === "message") return connection.data.getUint32(0, true);
    }
    return undefined;
  };
  try {
    connection.send(Request.SET_PROTOCOL_FEATURES, 0, words(REPLY_ACK | CONFIGURE_MEM_SLOTS, 0));
    const region = joined(longs(0), longs(ONE * PAGE, MIB, 0, 0));
    connection.send(Request.ADD_MEM_REG, FLAG_NEED_REPLY, region, [file]);
    assertEquals(answered(), 0);
    device.iommu.attach(1, 8, false);
    for (const end of ["message", "session"]) {
      fill(device, ONE, 0, COUNT);
      if (end === "session") backEnd.close();
      else connection.send(Request.REM_MEM_REG, FLAG_NEED_REPLY, region);
      backEnd.onReadable();
      assertEquals(
        mappingsOf("host-regions").length,
        mapped.length + 1,
        "frames are still in tables",
      );
      if (end === "message") assertEquals(connection.read(), "nothing");
      assert(finishPieces(device) >= 2);
      assertEquals(mappingsOf("host-regions"), mapped);
      assertEquals([device.iommu.mappingCount, device.guest.pinnedPages], [0, 0]);
      if (end === "session") break;
      assert(backEnd.isDue);
      assertEquals(answered(), 0);
      connection.send(Request.ADD_MEM_REG, FLAG_NEED_REPLY, region, [file]);
      assertEquals(answered(), 0);
    }
  } finally {
    backEnd.close();
    connection.close();
    file.close();
    device.close();
  }
});

Deno.test("an UNMAP of many pages that are pinned one by one goes in pieces of few pages", () => {
  using guest = new Stepped(options());
  const { device } = guest;
  device.memoryAdded(ram(ONE));
  assertEquals(guest.request(attachRequest(1, 8)), 0);
  const count = 100;
  assert(count * PAGES > 4 * UNSTABLE_PAGES_PER_PIECE);
  for (let i = 0; i < count; i++) {
    const first = 0x10000 + i * PAGES;
    assertEquals(guest.request(mapPages(1, first, first + PAGES - 1, ONE)), 0);
  }
  let status = guest.begin(unmapPages(1, 0, 2 ** 30));
  let pieces = 1;
  for (; status === undefined; pieces++) {
    const before = guest.mappings;
    status = guest.proceed();
    assert((before - guest.mappings) * PAGES <= UNSTABLE_PAGES_PER_PIECE, "a piece is bounded");
  }
  assertEquals([status, guest.mappings, device.guest.pinnedPages], [0, 0, 0]);
  assert(pieces >= count * PAGES / UNSTABLE_PAGES_PER_PIECE, `${pieces} pieces`);
});

Deno.test("whatever memory comes and goes, mappings lead to the frames of what is there, and nothing stays pinned", () => {
  const slot = fc.nat({ max: 2 });
  const step = fc.oneof(
    fc.record({ kind: fc.constantFrom("add" as const, "remove" as const), slot }),
    fc.record({
      kind: fc.constant("map" as const),
      slot,
      page: fc.nat({ max: PAGES - 1 }),
      pages: fc.integer({ min: 1, max: 300 }),
      count: fc.integer({ min: 1, max: 400 }),
    }),
    fc.record({ kind: fc.constantFrom("reset" as const, "end" as const) }),
  );
  fc.assert(
    fc.property(fc.array(step, { minLength: 2, maxLength: 16 }), (steps) => {
      const device = new IommuDevice(options());
      /** The regions there are, by slot, and the frame of the first page of each; there is room between two slots. */
      const regions = new Map<number, { region: MemoryRegion; frame: number }>();
      /** What is mapped: at which page, how many, of which slot, and from which of its pages on. */
      let mapped: { at: number; pages: number; slot: number; page: number }[] = [];
      let locked = 0;
      let next = 0;
      let [kept, released] = [0, 0];
      const remove = (slot: number) => {
        const { region } = regions.get(slot)!;
        regions.delete(slot);
        device.memoryRemoved(region);
        if (device.keepsMemory(region, () => released++)) kept++;
        mapped = mapped.filter((each) => each.slot !== slot);
      };
      device.iommu.attach(1, 8, false);
      for (const each of steps) {
        if (each.kind === "add" && !regions.has(each.slot)) {
          const region = ram(ONE + each.slot * 2 * PAGES);
          device.memoryAdded(region);
          regions.set(each.slot, { region, frame: 1000 * ++locked });
        } else if (each.kind === "remove" && regions.has(each.slot)) {
          remove(each.slot);
        } else if (each.kind === "map") {
          const { slot, page, pages, count } = each;
          const fits = regions.has(slot) && page + pages <= PAGES;
          for (let i = 0; i < count; i++, next += pages) {
            const domain = device.iommu.domain(1)!;
            const first = ONE + slot * 2 * PAGES + page;
            const status = device.iommu.map(domain, next, next + pages - 1, first, 3);
            assertEquals(status === 0, fits);
            if (fits) mapped.push({ at: next, pages, slot, page });
          }
        } else if (each.kind === "reset") {
          device.reset("device");
          mapped = [];
        } else if (each.kind === "end") {
          device.sessionEnds();
          for (const slot of [...regions.keys()]) remove(slot);
          device.disconnected();
        }
        finishPieces(device);
        assertEquals(released, kept);
        if (each.kind === "reset" || each.kind === "end") {
          while (device.hasWork) device.work(new Turn());
          device.iommu.attach(1, 8, false);
        }
        assertEquals(device.iommu.mappingCount, mapped.length);
        const pinned = new Set(
          mapped.flatMap(({ slot, page, pages }) =>
            Array.from({ length: pages }, (_, i) => slot * PAGES + page + i)
          ),
        );
        assertEquals(device.guest.pinnedPages, pinned.size);
        for (const { at, pages, slot, page } of mapped) {
          assert(device.walk(8, at + pages - 1, READ).ok);
          assertEquals(device.tableFrame, regions.get(slot)!.frame + page + pages - 1);
        }
      }
      device.close();
    }),
    { numRuns: isLong ? 60 : 30 },
  );
});
