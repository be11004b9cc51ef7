/** What a device behind the IOMMU is refused is reported to the guest where it was (virtio 1.4, 5.13.6.9). */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { attachRequest } from "../../../device/iommu/driver_requests.ts";
import {
  BlockDevice,
  BlockDisk,
  type EndpointDevice,
  EntropyDevice,
  SeededRandom,
} from "../../../device/endpoint/mod.ts";
import { EndpointMemory } from "../../../device/endpoint/endpoint_memory.ts";
import { ImageFile } from "../../../device/host/mod.ts";
import type { AddressSpace, GuestMemory } from "../../../vring/mod.ts";
import { InProcessGuest } from "../in_process_guest.ts";
import { plainMemory, plainRing } from "../plain_ring.ts";

const ENDPOINT = 8;
const RING = 0x0;
const HEADER = 0x4000;

/** An address that nothing is behind, whether it is translated or not. */
const nowhere = fc.oneof(
  fc.bigInt({ min: 1n << 40n, max: 2n ** 64n - 4096n }),
  fc.bigInt({ min: 2n ** 53n - 5000n, max: 2n ** 53n + 5000n }),
);

/** Ring in plain memory, buffers behind the endpoint's translation: only what the device touches is in question. */
class SplitSpaces implements AddressSpace {
  readonly ring: GuestMemory;
  readonly buffers: AddressSpace;
  #found: AddressSpace;

  constructor(ring: GuestMemory, buffers: AddressSpace) {
    this.ring = ring;
    this.buffers = buffers;
    this.#found = ring;
  }

  get generation(): number {
    return this.ring.generation;
  }

  get bytes(): Uint8Array {
    return this.#found.bytes;
  }

  get data(): DataView {
    return this.#found.data;
  }

  get offset(): number {
    return this.#found.offset;
  }

  resolve(address: number, length: number, write: boolean, page = 0): number {
    this.#found = page === 0 && address < 0x10000 ? this.ring : this.buffers;
    return this.#found.resolve(address, length, write, page);
  }

  written(address: number, length: number, page = 0): void {
    if (page !== 0 || address >= 0x10000) this.buffers.written(address, length, page);
  }
}

/** Gives a device one chain whose buffer at `index` is at an address, and answers where the guest hears of a fault. */
function faultOf(
  device: EndpointDevice,
  isAttached: boolean,
  lengths: readonly (readonly [length: number, writable: boolean])[],
  index: number,
  address: bigint,
): bigint | undefined {
  using guest = new InProcessGuest();
  const { memory, bytes } = plainMemory(0x10000);
  if (isAttached) guest.request(attachRequest(1, ENDPOINT), 4);
  const endpoint = new EndpointMemory(guest.device, ENDPOINT, guest.device.memory);
  const space = new SplitSpaces(memory, endpoint);
  try {
    const { driver, queue } = plainRing(memory, RING, 8, space);
    driver.begin();
    for (const [length, writable] of lengths) {
      if (writable) driver.addWritable(HEADER, length);
      else driver.addReadable(HEADER, length);
    }
    driver.commit();
    new DataView(bytes.buffer).setBigUint64(driver.descriptors + 16 * index, address, true);
    driver.kick();
    guest.offerEventBuffer(24);
    device.queueStarted(0, queue);
    while (device.serve(0, queue));
    assert(driver.reap(), "the device has not answered");
    device.queueStopped(0);
    const event = guest.takeEvent(24);
    if (event === undefined) return undefined;
    return new DataView(event.bytes.buffer).getBigUint64(16, true);
  } finally {
    endpoint.close();
  }
}

for (const isAttached of [false, true]) {
  const how = isAttached ? "translated" : "in bypass";

  Deno.test(`rng, ${how}: the address of a buffer that cannot be reached is reported exactly`, () => {
    fc.assert(fc.property(nowhere, (address) => {
      const device = new EntropyDevice(new SeededRandom(1));
      assertEquals(faultOf(device, isAttached, [[64, true]], 0, address), address);
    }));
  });

  Deno.test(`blk, ${how}: the address of a buffer that cannot be reached is reported exactly`, async () => {
    const path = await Deno.makeTempFile();
    await Deno.truncate(path, 65536);
    const device = new BlockDevice(new BlockDisk(ImageFile.open(path, true), false, ""), 1);
    try {
      fc.assert(fc.property(nowhere, (address) => {
        const read = [[16, false], [512, true], [1, true]] as const;
        assertEquals(faultOf(device, isAttached, read, 1, address), address);
      }));
    } finally {
      device.close();
      await Deno.remove(path);
    }
  });
}
