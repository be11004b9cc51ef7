/**
 * What becomes of a mapping whose memory the front end takes away (REM_MEM_REG, or SET_MEM_TABLE without it): a back end
 * unmaps the memory at once, so every access through the mapping is a fault that the guest hears of, until there is
 * memory at that guest address again or the guest unmaps.
 */
import { assert, assertEquals } from "@std/assert";
import { attachRequest, mapRequest, unmapRequest } from "../../../device/iommu/driver_requests.ts";
import { EndpointMemory } from "../../../device/endpoint/endpoint_memory.ts";
import { FAULT_F_READ, FAULT_F_WRITE, FAULT_R_MAPPING, S_OK } from "../../../device/iommu/wire.ts";
import { READ } from "../../../pagetable/mod.ts";
import type { MemoryRegion } from "../../../vring/mod.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "../in_process_guest.ts";

const ENDPOINT = 24;
const IOVA = 0x4000_0000;
/** Where the module of RAM is that comes and goes. */
const MODULE = 0x100_0000;
const SIZE = 0x10_000;

function module(content: number): MemoryRegion {
  const buffer = new ArrayBuffer(SIZE);
  new Uint8Array(buffer).fill(content);
  return { guestAddress: MODULE, size: SIZE, buffer, offset: 0 };
}

/** The next fault report: reason, flags, endpoint and address. */
function takeFault(guest: InProcessGuest): readonly [number, number, number, bigint] | undefined {
  guest.offerEventBuffer(24);
  const event = guest.takeEvent(24);
  if (event === undefined) return undefined;
  const view = new DataView(event.bytes.buffer);
  return [
    view.getUint8(0),
    view.getUint32(4, true),
    view.getUint32(8, true),
    view.getBigUint64(16, true),
  ];
}

Deno.test("memory that is removed while mapped faults at every access, until it is back; UNMAP goes as ever", () => {
  const guest = new InProcessGuest({ ...DEFAULT_OPTIONS, bypass: false });
  const { device } = guest;
  const old = module(0x11);
  guest.addMemory(old);
  const map = mapRequest({
    domain: 1,
    virtStart: BigInt(IOVA),
    virtEnd: BigInt(IOVA + SIZE - 1),
    physStart: BigInt(MODULE),
    flags: 3,
  });
  assertEquals(guest.request(attachRequest(1, ENDPOINT), 4).bytes[0], S_OK);
  assertEquals(guest.request(map, 4).bytes[0], S_OK);
  const memory = new EndpointMemory(device, ENDPOINT, device.memory);
  const byteAt = (address: number): number => {
    const found = memory.resolve(address, 1, false);
    return found === 0 ? -1 : memory.bytes[memory.offset];
  };
  memory.keep(IOVA, 4096, true);
  assertEquals([memory.pins, memory.resolve(IOVA + 0x1234, 8, true) !== 0], [1, true]);
  assertEquals([byteAt(IOVA), memory.faults, takeFault(guest)], [0x11, 0, undefined]);

  guest.removeMemory(old);
  assertEquals(memory.resolve(IOVA + 0x1234, 8, false), 0);
  assertEquals(takeFault(guest), [
    FAULT_R_MAPPING,
    FAULT_F_READ | 0x100,
    ENDPOINT,
    BigInt(IOVA + 0x1234),
  ]);
  assertEquals(memory.resolve(IOVA + 0x1234, 8, true), 0);
  assertEquals(takeFault(guest)?.[1], FAULT_F_WRITE | 0x100);
  assertEquals([memory.faults, device.endpoints.seen(ENDPOINT)?.faults], [2, 2]);
  // The mapping is the guest's and stands: it leads to a guest address where nothing is.
  assert(device.walk(ENDPOINT, IOVA / 4096, READ).ok);

  guest.addMemory(module(0x22));
  assertEquals([byteAt(IOVA), byteAt(IOVA + SIZE - 1), memory.faults], [0x22, 0x22, 2]);
  const unmap = unmapRequest(1, BigInt(IOVA), BigInt(IOVA + SIZE - 1));
  assertEquals(guest.request(unmap, 4).bytes[0], S_OK);
  assertEquals([byteAt(IOVA), memory.pins, device.guest.pinnedPages], [-1, 0, 0]);
  memory.close();
  guest.close();
});
