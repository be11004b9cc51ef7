/**
 * A device and a driver in one process, on a real ring in an ArrayBuffer: no socket, no second process.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { MemoryRegion, SplitDriverQueue, SplitQueue } from "../../vring/mod.ts";
import { type DeviceOptions, IommuDevice } from "../../device/iommu/iommu_device.ts";
import { RESV_MEM_MSI } from "../../device/iommu/reserved_region.ts";
import { Turn } from "../../device/iommu/turn.ts";
import { plainRing } from "./plain_ring.ts";

/** Guest memory in bytes; the rings and buffers of the driver lie in it. */
const MEMORY_SIZE = 1 << 20;
/** Guest address of the two rings and of the buffers. */
const REQUEST_RING = 0x0;
const EVENT_RING = 0x8000;
const READABLE = 0x10000;
const WRITABLE = 0x18000;
const EVENT = 0x1c000;

/** A device as `serve` makes it without options. */
export const DEFAULT_OPTIONS: DeviceOptions = {
  endpoints: [{ first: 0, last: 0xffff, format: "vtd-ss" }],
  reserved: [{ firstPage: 0xfee00, lastPage: 0xfeeff, subtype: RESV_MEM_MSI }],
  bypass: true,
  maxDomains: 65536,
  maxMappings: 2 ** 24,
  maxTableMemory: 64 << 20,
  tableBaseFrame: 2 ** 31,
};

/** Cuts `length` bytes from `address` on into so many pieces at most: address and length of each. */
export function piecesOf(
  address: number,
  length: number,
  pieces: number,
): readonly (readonly [address: number, length: number])[] {
  const list: [number, number][] = [];
  const each = Math.ceil(length / pieces);
  for (let at = 0; at < length; at += each) list.push([address + at, Math.min(each, length - at)]);
  return list;
}

/** A device, and a driver that has set it up. */
export class InProcessGuest implements Disposable {
  /** The device. */
  readonly device: IommuDevice;
  readonly #turn = new Turn();
  readonly #bytes = new Uint8Array(MEMORY_SIZE);
  readonly #requests: SplitDriverQueue;
  readonly #events: SplitDriverQueue;
  readonly #requestQueue: SplitQueue;
  readonly #eventQueue: SplitQueue;

  /**
   * @param features Device features that the driver agrees to; all that are offered by default.
   * @param make Makes the device.
   */
  constructor(
    options: DeviceOptions = DEFAULT_OPTIONS,
    features = ~0,
    make = (options: DeviceOptions) => new IommuDevice(options),
  ) {
    this.device = make(options);
    const region = {
      guestAddress: 0,
      size: MEMORY_SIZE,
      buffer: this.#bytes.buffer,
      offset: 0,
    };
    this.addMemory(region);
    const { memory } = this.device;
    this.device.featuresAgreed(this.device.featuresLow & features, 0);
    const requests = plainRing(memory, REQUEST_RING, 8);
    const events = plainRing(memory, EVENT_RING, 8);
    this.#requests = requests.driver;
    this.#requestQueue = requests.queue;
    this.#events = events.driver;
    this.#eventQueue = events.queue;
    this.device.queueStarted(0, this.#requestQueue);
    this.device.queueStarted(1, this.#eventQueue);
  }

  /** Gives the device memory. */
  addMemory(region: MemoryRegion): void {
    assertEquals(this.device.memory.add(region), undefined);
    this.device.memoryAdded(region);
  }

  /** Takes memory from the device. */
  removeMemory(region: MemoryRegion): void {
    this.device.memory.remove(region.guestAddress, region.size);
    this.device.memoryRemoved(region);
  }

  /**
   * Sends one request, which the device serves.
   *
   * @param poison What the writable part is filled with beforehand.
   * @param pieces How many buffers either part is cut into at most.
   */
  request(readable: Uint8Array, writableLength: number, poison = 0, pieces = 1): {
    readonly length: number;
    readonly bytes: Uint8Array<ArrayBuffer>;
  } {
    this.#bytes.set(readable, READABLE);
    this.#bytes.fill(poison, WRITABLE, WRITABLE + writableLength);
    this.#requests.begin();
    for (const [address, length] of piecesOf(READABLE, readable.length, pieces)) {
      this.#requests.addReadable(address, length);
    }
    for (const [address, length] of piecesOf(WRITABLE, writableLength, pieces)) {
      this.#requests.addWritable(address, length);
    }
    this.#requests.commit();
    this.#requests.kick();
    this.device.service(0, this.#requestQueue, 1);
    while (this.device.messagesWait) {
      this.device.work(this.#turn);
      this.device.service(0, this.#requestQueue, 1);
    }
    if (!this.#requests.reap()) {
      throw new Error("Cannot find the answer: the device used no buffer");
    }
    return {
      length: this.#requests.usedLength,
      bytes: this.#bytes.slice(WRITABLE, WRITABLE + writableLength),
    };
  }

  /** Gives the device one buffer for a fault report. */
  offerEventBuffer(size: number, poison = 0): void {
    this.#bytes.fill(poison, EVENT, EVENT + size);
    this.#events.begin();
    this.#events.addWritable(EVENT, size);
    this.#events.commit();
    this.#events.kick();
  }

  /** Takes the next report that the device delivers. */
  takeEvent(
    size: number,
  ): { readonly length: number; readonly bytes: Uint8Array<ArrayBuffer> } | undefined {
    this.device.service(1, this.#eventQueue, 1);
    if (!this.#events.reap()) return undefined;
    return { length: this.#events.usedLength, bytes: this.#bytes.slice(EVENT, EVENT + size) };
  }

  /** Resets the device and sets it up again. */
  reset(kind: "device" | "system", features = ~0): void {
    this.device.reset(kind);
    this.device.featuresAgreed(this.device.featuresLow & features, 0);
  }

  /** Ends the device; throws if it leaked anything. */
  close(): void {
    for (const region of this.device.memory.regions) this.removeMemory(region);
    this.device.close();
  }

  /** Closes it at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }
}
