/**
 * Embeds a virtio-iommu in a program, without a socket, as an emulator does for its guest.
 *
 * ```sh
 * deno run examples/embed_iommu.ts
 * ```
 *
 * The program plays both sides: the VMM, which has memory and a virtqueue, and the guest's driver, which sends ATTACH
 * and MAP on it. Nothing here needs Deno: bundled, it also runs in Node and in a browser.
 *
 * @module
 */
import {
  attachRequest,
  IommuDevice,
  MAP_F_READ,
  MAP_F_WRITE,
  mapRequest,
  statusName,
} from "../device/iommu/mod.ts";
import { READ, WRITE } from "../pagetable/mod.ts";
import { SplitDriverQueue, SplitQueue } from "../vring/mod.ts";

/** The endpoint: a PCI device at 00:03.0. */
const ENDPOINT = 3 << 3;
/** Guest-physical addresses of the request queue and of the two parts of a request. */
const RING = 0x0;
const READABLE = 0x4000;
const WRITABLE = 0x5000;

// The VMM's part: a device, 1 MiB of guest memory, and the request queue as the driver configured it.
const device = new IommuDevice({
  endpoints: [{ first: 0, last: 0xff, format: "vtd-ss" }],
  reserved: [],
  bypass: false,
  maxDomains: 64,
  maxMappings: 65536,
  maxTableMemory: 16 << 20,
  tableBaseFrame: 2 ** 31,
});
const ram = new Uint8Array(1 << 20);
const region = { guestAddress: 0, size: ram.length, buffer: ram.buffer, offset: 0 };
const { memory } = device;
memory.add(region);
device.memoryAdded(region);
device.featuresAgreed(device.featuresLow, device.featuresHigh);
const driver = new SplitDriverQueue({ space: memory, address: RING, size: 8 });
const queue = new SplitQueue(memory);
queue.configure(driver);
device.queueStarted(0, queue);

/** The guest's driver sends a request and waits; returns the name of the status. */
function request(readable: Uint8Array): string {
  ram.set(readable, READABLE);
  driver.begin();
  driver.addReadable(READABLE, readable.length);
  driver.addWritable(WRITABLE, 4);
  driver.commit();
  driver.kick();
  // The kick: the device serves its queue.
  device.service(0, queue, 8);
  driver.reap();
  return statusName(ram.subarray(WRITABLE), driver.usedLength);
}

/** The translation of an access by the endpoint, as text. */
function access(iova: number, permission: number): string {
  const walk = device.walk(ENDPOINT, Math.floor(iova / 4096), permission);
  const place = `0x${iova.toString(16)} ${permission === WRITE ? "write" : "read"}`;
  if (!walk.ok) return `${place}: ${walk.faultName}`;
  return `${place}: 0x${(walk.frame * 4096 + iova % 4096).toString(16)}`;
}

console.log(access(0x10_0008, READ));
console.log(`ATTACH: ${request(attachRequest(1, ENDPOINT))}`);
const map = { domain: 1, virtStart: 0x10_0000n, virtEnd: 0x10_1fffn, physStart: 0x8000n };
console.log(`MAP: ${request(mapRequest({ ...map, flags: MAP_F_READ }))}`);
console.log(access(0x10_0008, READ));
console.log(access(0x10_0008, WRITE));
console.log(`MAP again: ${request(mapRequest({ ...map, flags: MAP_F_READ | MAP_F_WRITE }))}`);
memory.remove(region.guestAddress, region.size);
device.memoryRemoved(region);
device.close();
