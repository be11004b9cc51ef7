/**
 * A device behind an IOMMU: ring and buffer addresses are I/O virtual, and go through an address space that
 * was handed in (VIRTIO_F_ACCESS_PLATFORM).
 */
import { assert, assertEquals } from "@std/assert";
import { UnixStream } from "../../../device/host/mod.ts";
import { FrontEnd, Request, TransportFeature } from "../../../device/vhost_user/mod.ts";
import type { AddressSpace, GuestMemory } from "../../../vring/mod.ts";
import { RecordingDevice, Service } from "./serving.ts";

const IOVA = 0x4000_0000;
const MIB = 1 << 20;
const { ACCESS_PLATFORM } = TransportFeature;

/** An I/O address space that shows guest memory at {@linkcode IOVA}. */
class Shifted implements AddressSpace {
  readonly #memory: GuestMemory;

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  get generation(): number {
    return this.#memory.generation;
  }

  get bytes(): Uint8Array {
    return this.#memory.bytes;
  }

  get data(): DataView {
    return this.#memory.data;
  }

  get offset(): number {
    return this.#memory.offset;
  }

  resolve(address: number, length: number, write: boolean): number {
    return address < IOVA ? 0 : this.#memory.resolve(address - IOVA, length, write);
  }

  written(address: number, length: number): void {
    this.#memory.written(address - IOVA, length);
  }
}

Deno.test("rings and buffers of a device behind an IOMMU go through its address space", async () => {
  const [one, other] = UnixStream.pair();
  const service = new Service(one, new RecordingDevice(), {
    addressSpace: (memory) => new Shifted(memory),
  });
  // Without indirect tables, whose place the ring's own code would give as a guest address.
  const acceptLow = TransportFeature.PROTOCOL_FEATURES | TransportFeature.EVENT_IDX;
  const acceptHigh = TransportFeature.VERSION_1 | ACCESS_PLATFORM;
  const frontEnd = new FrontEnd(other, { acceptLow, acceptHigh, iovaOffset: IOVA });
  await frontEnd.negotiate();
  assert((frontEnd.featuresHigh & ACCESS_PLATFORM) !== 0);
  // QEMU tells its own view of I/O addresses, which does not count.
  await frontEnd.tell(Request.IOTLB_MSG, new Uint8Array(32));
  const memory = await frontEnd.addMemory(0, MIB);
  const queue = await frontEnd.startQueue(0, { size: 8, address: 0 });
  const bytes = new Uint8Array(memory.mapping.buffer);
  bytes.set([1, 2, 3, 4], 0x8000);
  queue.driver.begin();
  queue.driver.addReadable(IOVA + 0x8000, 4);
  queue.driver.addWritable(IOVA + 0x9000, 4);
  queue.driver.commit();
  queue.kick();
  assertEquals(await queue.reap(), true);
  assertEquals([...bytes.subarray(0x9000, 0x9004)], [4, 3, 2, 1]);
  frontEnd.close();
  await service.done;
  assertEquals(service.warnings, []);
});

Deno.test("ACCESS_PLATFORM is on offer only behind an IOMMU", async () => {
  const [one, other] = UnixStream.pair();
  const service = new Service(one, new RecordingDevice());
  const frontEnd = new FrontEnd(other, { acceptHigh: 1 | ACCESS_PLATFORM });
  await frontEnd.negotiate();
  assertEquals(frontEnd.featuresHigh & ACCESS_PLATFORM, 0);
  frontEnd.close();
  await service.done;
});
