/**
 * What the virtqueue tests share: guest memory in one or more regions, a ring in it, both of its ends.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import {
  type DriverQueue,
  type DriverQueueSetup,
  GuestMemory,
  inflightBytes,
  type MemoryRegion,
  PackedDriverQueue,
  PackedQueue,
  type Queue,
  type QueueSetup,
  SplitDriverQueue,
  SplitQueue,
} from "../../vring/mod.ts";
import { isLong } from "../long_mode.ts";

/** Guest address of the first region that {@linkcode memoryOf} makes. */
export const BASE = 0x10_0000;

/** Guest memory at {@linkcode BASE} made of adjacent regions of the given sizes, in separate buffers. */
export function memoryOf(...sizes: number[]): GuestMemory {
  const memory = new GuestMemory();
  let guestAddress = BASE;
  for (const size of sizes) {
    assertEquals(memory.add(regionOf(guestAddress, size)), undefined);
    guestAddress += size;
  }
  return memory;
}

/** A region with a buffer of its own, which begins 64 bytes before it. */
export function regionOf(guestAddress: number, size: number): MemoryRegion {
  return {
    guestAddress,
    size,
    buffer: new ArrayBuffer(size + 64),
    offset: 64,
  };
}

/** Everything about a ring but where it is. */
export interface RingOptions {
  readonly packed?: boolean;
  readonly size: number;
  readonly eventIndex?: boolean;
  readonly indirect?: boolean;
  readonly indirectLength?: number;
  readonly inOrder?: boolean;
  /** Whether the device keeps a record of chains in flight. */
  readonly inflight?: boolean;
}

/** Both ends of one ring and the memory between them. */
export interface Ring {
  readonly memory: GuestMemory;
  readonly driver: DriverQueue;
  readonly queue: Queue;
  /** What the queue was configured with. */
  readonly setup: QueueSetup;
  /** First byte behind the ring: buffers go from here on. */
  readonly buffers: number;
}

/** A ring at the start of memory. */
export function ringIn(memory: GuestMemory, options: RingOptions): Ring {
  const driverSetup: DriverQueueSetup = { space: memory, address: BASE, ...options };
  const packed = options.packed ?? false;
  const driver = packed ? new PackedDriverQueue(driverSetup) : new SplitDriverQueue(driverSetup);
  const queue = packed ? new PackedQueue(memory) : new SplitQueue(memory);
  const setup = setupOf(driver, options);
  assertEquals(queue.configure(setup), 0);
  const buffers = BASE + Math.ceil(driver.byteLength / 4096) * 4096;
  return { memory, driver, queue, setup, buffers };
}

/** The device's configuration for a driver's ring. */
export function setupOf(driver: DriverQueue, options: RingOptions): QueueSetup {
  return {
    size: driver.size,
    descriptors: driver.descriptors,
    driverArea: driver.driverArea,
    deviceArea: driver.deviceArea,
    eventIndex: options.eventIndex ?? false,
    indirect: options.indirect ?? false,
    inOrder: options.inOrder ?? false,
    inflight: options.inflight === true ? inflightRegion(options) : null,
  };
}

/** A new region for the record of chains in flight. */
export function inflightRegion(options: RingOptions): Uint8Array {
  const { size } = options;
  return new Uint8Array(
    inflightBytes(options.packed ?? false, size),
  );
}

/** How often to try a property: `normal` times, or `long` times in the long mode (VIOMMU_TEST=full). */
export function runs(normal: number, long: number = 10 * normal): number {
  return isLong ? long : normal;
}
