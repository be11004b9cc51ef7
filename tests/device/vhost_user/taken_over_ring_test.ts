/**
 * Rings that ran in an earlier process, started again by a front end's session without a message of the front end.
 */
import { assert, assertEquals } from "@std/assert";
import { attachRequest, mapRequest } from "../../../device/iommu/driver_requests.ts";
import { IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { Journal } from "../../../device/iommu/journal/journal.ts";
import { Event } from "../../../device/host/mod.ts";
import { Log } from "../../../device/log.ts";
import { MemoryTable } from "../../../device/vhost_user/memory_table.ts";
import { TransportFeature } from "../../../device/vhost_user/mod.ts";
import type { Ring } from "../../../device/vhost_user/ring.ts";
import { RingSet } from "../../../device/vhost_user/ring_set.ts";
import { GuestMemory, PackedDriverQueue } from "../../../vring/mod.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";

const SIZE = 8;
const RING = 0x1000;
const MEMORY = 0x10000;

/** What a session keeps of a ring, and the process that serves it now. */
class Process {
  readonly device = new IommuDevice(DEFAULT_OPTIONS);
  readonly table = new MemoryTable(this.device);
  readonly rings = new RingSet(this.device, this.table, this.device.memory, new Log("error"));
  readonly ring: Ring = this.rings.rings[0];

  constructor(journal: ArrayBuffer, memory: ArrayBuffer, driver: PackedDriverQueue, call: Event) {
    assertEquals(this.device.journal.takeOver(Journal.open(journal)), undefined);
    const region = { guestAddress: 0, size: MEMORY, buffer: memory, offset: 0 };
    assertEquals(this.table.memory.add(region), undefined);
    this.device.memoryAdded(region);
    this.rings.setFeatures(
      TransportFeature.PROTOCOL_FEATURES | TransportFeature.ACCESS_PLATFORM,
      TransportFeature.RING_PACKED | TransportFeature.ACCESS_PLATFORM,
    );
    const at = (address: number) => ({ page: address >> 12, offset: address & 0xfff });
    this.ring.size = SIZE;
    this.ring.addresses = {
      flags: 0,
      descriptors: at(driver.descriptors),
      used: at(driver.deviceArea),
      available: at(driver.driverArea),
      log: 0,
    };
    this.ring.call = call;
    this.ring.started = true;
    this.ring.enabled = true;
  }
}

Deno.test("a ring goes on where an earlier process ended, its driver is signalled, and nothing of the guest is doubted", () => {
  const memory = new ArrayBuffer(MEMORY);
  const journal = new ArrayBuffer(1 << 16);
  const bytes = new Uint8Array(memory);
  const call = Event.create();
  const space = new GuestMemory();
  space.add({ guestAddress: 0, size: MEMORY, buffer: memory, offset: 0 });
  const driver = new PackedDriverQueue({ space, address: RING, size: SIZE });
  const send = (request: Uint8Array, at: number): void => {
    bytes.set(request, at);
    driver.begin();
    driver.addReadable(at, request.length);
    driver.addWritable(at + 64, 4);
    driver.commit();
    driver.kick();
  };
  const map = mapRequest({
    domain: 1,
    virtStart: 0n,
    virtEnd: 4095n,
    physStart: 0x8000n,
    flags: 3,
  });

  const first = new Process(journal, memory, driver, call);
  assertEquals(first.rings.start(first.ring), undefined);
  send(attachRequest(1, 8), 0x4000);
  assertEquals(first.device.service(0, first.ring.running!, 1), 1);
  send(map, 0x4100);
  call.drain();

  // It ends with a request that it has not taken; the next one is told of no start.
  const second = new Process(journal, memory, driver, call);
  assertEquals(second.rings.takeOver(second.ring), undefined);
  assert(call.drain(), "the driver may have missed the signal for the first answer");
  assertEquals(second.device.life.state, "known");
  assertEquals(second.device.service(0, second.ring.running!, 8), 1);
  const lengths: number[] = [];
  while (driver.reap()) lengths.push(driver.usedLength);
  assertEquals(lengths, [4, 4]);
  assertEquals(second.device.iommu.mappingCount, 1);

  // A ring of another size is not the one that the record is of.
  const third = new Process(journal, memory, driver, call);
  third.ring.size = 4;
  third.rings.takeOver(third.ring);
  assertEquals([third.ring.queue, third.rings.takeMisplaced()], [undefined, true]);
  call.close();
});
