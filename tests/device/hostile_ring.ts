/**
 * Requests that cost a device much, or nothing, by the ring: what a hostile guest repeats to keep others waiting.
 *
 * @module
 */
import {
  attachRequest,
  detachRequest,
  mapRequest,
  probeRequest,
  unmapRequest,
} from "../../device/iommu/driver_requests.ts";
import { type DeviceOptions, IommuDevice } from "../../device/iommu/iommu_device.ts";
import type { Turn } from "../../device/iommu/turn.ts";
import type { SplitDriverQueue, SplitQueue } from "../../vring/mod.ts";
import { DEFAULT_OPTIONS } from "./in_process_guest.ts";
import { plainMemory, plainRing } from "./plain_ring.ts";

/** Entries of the ring; a request takes two. */
const ENTRIES = 256;
const MEMORY = 1 << 20;
const REQUESTS = 0x10000;
const STRIDE = 128;

/** Pages of 1 GiB, which is mapped off every larger leaf: 513 tables. */
export const LARGE_PAGES = 2 ** 18;

/** An endpoint whose format is another than that of all others. */
export const SECOND_FORMAT = 0xfff0;

/** A device that lets the guest have all these. */
export const HOSTILE_OPTIONS: DeviceOptions = {
  ...DEFAULT_OPTIONS,
  endpoints: [
    ...DEFAULT_OPTIONS.endpoints,
    { first: SECOND_FORMAT, last: SECOND_FORMAT, format: "amdv1" },
  ],
  bypass: false,
  maxTableMemory: 2 ** 30,
};

/** A MAP of domain 1. */
export function map(first: number, pages: number): Uint8Array {
  const virtStart = BigInt(first) * 4096n;
  const virtEnd = BigInt(first + pages) * 4096n - 1n;
  return mapRequest({ domain: 1, virtStart, virtEnd, physStart: 0x5000n, flags: 3 });
}

/** An UNMAP of domain 1. */
export function unmap(first: number, pages: number): Uint8Array {
  return unmapRequest(1, BigInt(first) * 4096n, BigInt(first + pages) * 4096n - 1n);
}

/** A kind of request. */
export interface HostileRequest {
  /** The one with a number. */
  readonly request: (i: number) => Uint8Array;
  /** Whether a single one may take much longer than the shortest. */
  readonly isLarge: boolean;
}

/** Kinds of requests, in an order in which each finds what it needs: a kind that removes follows one that makes. */
export const HOSTILE_REQUESTS: Readonly<Record<string, HostileRequest>> = {
  "small MAP": { request: (i) => map(2 ** 20 + i * 2, 1), isLarge: false },
  "refused MAP": { request: () => map(2 ** 40, 1), isLarge: false },
  "small UNMAP": { request: (i) => unmap(2 ** 20 + i * 2, 1), isLarge: false },
  "PROBE": { request: () => probeRequest(8), isLarge: false },
  "unknown": { request: () => new Uint8Array(36).fill(0xff), isLarge: false },
  "large MAP": { request: (i) => map(2 ** 21 + i * 2 * LARGE_PAGES, LARGE_PAGES), isLarge: true },
  "large UNMAP": {
    request: (i) => unmap(2 ** 21 + i * 2 * LARGE_PAGES, LARGE_PAGES),
    isLarge: true,
  },
  "ATTACH that makes a domain": {
    request: (i) => attachRequest(100 + i, 100 + i),
    isLarge: true,
  },
  "DETACH that ends one": { request: (i) => detachRequest(100 + i, 100 + i), isLarge: true },
};

/** A device with an endpoint in domain 1, and a ring full of requests. */
export class HostileRing implements Disposable {
  /** The device. */
  readonly device: IommuDevice = new IommuDevice(HOSTILE_OPTIONS);
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #driver: SplitDriverQueue;
  readonly #queue: SplitQueue;

  /** A ring in memory of its own. */
  constructor() {
    const { memory, bytes } = plainMemory(MEMORY);
    this.#bytes = bytes;
    this.device.featuresAgreed(this.device.featuresLow, 0);
    this.device.iommu.attach(1, 8, false);
    const { driver, queue } = plainRing(memory, 0, ENTRIES);
    this.#driver = driver;
    this.#queue = queue;
  }

  /** Puts requests `[0, count)` into the ring, which is empty. */
  fill(count: number, request: (i: number) => Uint8Array): void {
    const driver = this.#driver;
    for (let slot = 0; slot < count; slot++) {
      const at = REQUESTS + slot * STRIDE;
      const readable = request(slot);
      this.#bytes.set(readable, at);
      driver.begin();
      driver.addReadable(at, readable.length);
      driver.addWritable(at + 64, 64);
      driver.commit();
    }
    driver.kick();
  }

  /** Serves what one turn allows. Returns how many were answered. */
  serve(turn: Turn): number {
    if (this.device.hasWork) this.device.work(turn);
    return this.device.service(0, this.#queue, ENTRIES, turn);
  }

  /** Takes the answers back. */
  collect(): void {
    while (this.#driver.reap());
  }

  /** Ends the device. */
  [Symbol.dispose](): void {
    this.device.close();
  }
}
