/**
 * A guest without conscience: requests cut into pieces of any shape anywhere in memory, and proof afterwards that
 * the device wrote nothing but what it was given to write.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { type DeviceOptions, IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { Turn } from "../../../device/iommu/turn.ts";
import { STATUS_NAMES } from "../../../device/iommu/wire.ts";
import {
  type AddressSpace,
  type DriverQueue,
  GuestMemory,
  type MemoryRegion,
  PackedDriverQueue,
  PackedQueue,
  type Queue,
  SplitDriverQueue,
  SplitQueue,
} from "../../../vring/mod.ts";

/** Bytes of guest memory: the ring of requests, the ring of events, and buffers behind them. */
const MEMORY_SIZE = 0x10000;
const EVENT_RING = 0x3000;
const EVENT_BUFFER = 0x3f00;
const BUFFERS = 0x4000;
const RING_SIZE = 16;
const POISON = 0xa5;

/** A part of a request's buffer. Where `address` is missing it lies in memory, behind the one before. */
export interface Piece {
  readonly length: number;
  /** Free bytes in front of it. */
  readonly gap: number;
  /** An address that is no memory. */
  readonly address?: number;
}

/** How the rings are laid out. */
export interface HostileLayout {
  readonly packed: boolean;
  readonly eventIndex: boolean;
  readonly indirect: boolean;
}

/** What became of a request. */
export interface Outcome {
  /** Used length; -1 where the ring broke instead. */
  readonly length: number;
  /** The type and the status that the device counted; empty where it counted nothing. */
  readonly counted: string;
  /** The writable part that is in memory, in order. */
  readonly written: Uint8Array;
}

/** A device and its guest. */
export class HostileGuest {
  readonly device: IommuDevice;
  readonly memory = new GuestMemory();
  readonly bytes = new Uint8Array(MEMORY_SIZE);
  readonly #words = new Int32Array(this.bytes.buffer);
  readonly #before = new Int32Array(MEMORY_SIZE / 4);
  readonly #counts: Float64Array;
  readonly #turn = new Turn();
  readonly #layout: HostileLayout;
  readonly #space: AddressSpace;
  /** Whether memory changes by the device alone while it serves. */
  readonly #steady: boolean;
  readonly #region: MemoryRegion;
  #requests!: DriverQueue;
  #events!: DriverQueue;
  #requestQueue!: Queue;
  #eventQueue!: Queue;

  /** @param spaceOf What the device's queues read and write through; guest memory as it is by default. */
  constructor(
    options: DeviceOptions,
    layout: HostileLayout,
    spaceOf: (memory: GuestMemory) => AddressSpace = (memory) => memory,
  ) {
    this.device = new IommuDevice(options);
    this.#counts = new Float64Array(this.device.requests.counts.length);
    this.#layout = layout;
    this.#space = spaceOf(this.memory);
    this.#steady = this.#space === this.memory;
    this.#region = this.addMemory(0, this.bytes.buffer);
    this.device.featuresAgreed(this.device.featuresLow, 0);
    this.startQueues();
  }

  /** Adds memory at a guest address. */
  addMemory(guestAddress: number, buffer: ArrayBuffer): MemoryRegion {
    const size = buffer.byteLength;
    const region = { guestAddress, size, buffer, offset: 0 };
    assertEquals(this.memory.add(region), undefined);
    this.device.memoryAdded(region);
    return region;
  }

  /** Takes memory away. */
  removeMemory(region: MemoryRegion): void {
    this.memory.remove(region.guestAddress, region.size);
    this.device.memoryRemoved(region);
  }

  /** Begins both rings anew, as a driver does that has just been loaded. */
  startQueues(): void {
    this.bytes.fill(0, 0, BUFFERS);
    const setup = { space: this.memory, size: RING_SIZE, ...this.#layout };
    const Driver = this.#layout.packed ? PackedDriverQueue : SplitDriverQueue;
    this.#requests = new Driver({ ...setup, address: 0 });
    this.#events = new Driver({ ...setup, address: EVENT_RING, indirect: false, size: 4 });
    assert(this.#requests.byteLength <= EVENT_RING);
    this.#requestQueue = this.#deviceSide(this.#requests, this.#layout.indirect);
    this.#eventQueue = this.#deviceSide(this.#events, false);
    this.device.queueStarted(0, this.#requestQueue);
    this.device.queueStarted(1, this.#eventQueue);
  }

  #deviceSide(driver: DriverQueue, indirect: boolean): Queue {
    const queue = this.#layout.packed ? new PackedQueue(this.#space) : new SplitQueue(this.#space);
    const { size, descriptors, driverArea, deviceArea } = driver;
    const { eventIndex } = this.#layout;
    assertEquals(
      queue.configure({ size, descriptors, driverArea, deviceArea, eventIndex, indirect }),
      0,
    );
    return queue;
  }

  /**
   * Sends a request, which the device serves.
   *
   * @param readable The request, which `readablePieces` cut up.
   * @param disturb Called when the request is visible to the device; may make the ring senseless.
   */
  request(
    readable: Uint8Array,
    readablePieces: readonly Piece[],
    writablePieces: readonly Piece[],
    disturb?: () => void,
  ): Outcome {
    const driver = this.#requests;
    const written: [number, number][] = [];
    let at = BUFFERS;
    let from = 0;
    driver.begin();
    for (const { gap, length, address } of readablePieces) {
      at += gap;
      driver.addReadable(address ?? at, length);
      if (address === undefined) {
        this.bytes.set(readable.subarray(from, from + length), at);
        at += length;
      }
      from += length;
    }
    for (const { gap, length, address } of writablePieces) {
      at += gap;
      driver.addWritable(address ?? at, length);
      if (address !== undefined) continue;
      this.bytes.fill(POISON, at, at + length);
      written.push([at, at + length]);
      at += length;
    }
    assert(at <= MEMORY_SIZE, "the pieces fit");
    assert(driver.commit() >= 0, "the chain fits");
    driver.kick();
    disturb?.();
    this.#before.set(this.#words);
    this.#counts.set(this.device.requests.counts);
    this.device.service(0, this.#requestQueue, 1);
    while (this.device.messagesWait) {
      this.device.work(this.#turn);
      this.device.service(0, this.#requestQueue, 1);
    }
    if (this.#steady) this.#assertUntouched(written);
    const length = this.#reap(this.#steady && disturb === undefined);
    return {
      length,
      counted: this.#newCount(),
      written: Uint8Array.from(written.flatMap(([a, b]) => [...this.bytes.subarray(a, b)])),
    };
  }

  /** The used length of the request; -1 where there is none, or the driver cannot make sense of it. */
  #reap(isSane: boolean): number {
    if (this.#requestQueue.error !== 0) return -1;
    try {
      return this.#requests.reap() ? this.#requests.usedLength : -1;
    } catch (error) {
      if (isSane) throw error;
      return -1;
    }
  }

  /** Fails if anything but the ring and the writable pieces has changed. */
  #assertUntouched(written: readonly (readonly [number, number])[]): void {
    const words = this.#words;
    const before = this.#before;
    for (let word = BUFFERS / 4; word < words.length; word++) {
      if (words[word] === before[word]) continue;
      for (let at = word * 4; at < word * 4 + 4; at++) {
        const changed = (words[word] ^ before[word]) >>> ((at % 4) * 8) & 0xff;
        const allowed = changed === 0 || written.some(([first, end]) => first <= at && at < end);
        assert(allowed, `the device wrote at 0x${at.toString(16)}`);
      }
    }
  }

  #newCount(): string {
    const counts = this.device.requests.counts;
    const found: string[] = [];
    for (let i = 0; i < counts.length; i++) {
      const more = counts[i] - this.#counts[i];
      const names = STATUS_NAMES.length;
      if (more > 0) found.push(`${Math.floor(i / names)} ${STATUS_NAMES[i % names]}`);
      assert(more === 0 || more === 1);
    }
    return found.join(", ");
  }

  /** Gives the device a buffer for a report, if the ring has room; has it deliver; takes back what is used. */
  events(size: number): void {
    this.#events.begin();
    this.#events.addWritable(EVENT_BUFFER, size);
    if (this.#events.commit() >= 0) this.#events.kick();
    this.device.service(1, this.#eventQueue, 1);
    while (this.#events.reap()) assert([0, 24].includes(this.#events.usedLength));
  }

  /** Writes random bytes over the ring of requests. */
  scribble(count: number, below: (limit: number) => number): void {
    const { descriptors } = this.#requests;
    for (let i = 0; i < count; i++) this.bytes[descriptors + below(0x400)] = below(256);
  }

  /** Ends the device; throws if it leaked anything. */
  close(): void {
    this.device.reset("system");
    assertEquals(this.device.endpoints.list(), []);
    this.removeMemory(this.#region);
    assertEquals(this.memory.regions.length, 0);
    this.device.close();
  }
}
