/**
 * A driver and a device on a real ring in this process: batches of requests, without a guest.
 *
 * Filling the ring and collecting the answers is the driver's work; {@linkcode RingDriver.deviceMs} is the time of
 * the device alone.
 *
 * @module
 */
import {
  GuestMemory,
  PackedDriverQueue,
  PackedQueue,
  POSITION_RECORD_BYTES,
  PositionRecord,
  SplitDriverQueue,
  SplitQueue,
} from "../../vring/mod.ts";
import { Journal } from "../../device/iommu/journal/journal.ts";
import { attachRequest, putRange, putTarget } from "../../device/iommu/driver_requests.ts";
import { type DeviceOptions, IommuDevice } from "../../device/iommu/iommu_device.ts";
import { MAP_F_READ, MAP_F_WRITE, T_MAP, T_UNMAP } from "../../device/iommu/wire.ts";
import { DEFAULT_OPTIONS } from "../../tests/device/in_process_guest.ts";

/** Requests in a batch: as many as a ring of 256 entries holds at two descriptors each. */
export const BATCH = 128;
/** Bytes between two requests in guest memory: the readable part, and the tail 64 bytes on. */
const STRIDE = 128;
/** Where requests lie in guest memory. */
const REQUESTS = 0x10000;
const MEMORY_SIZE = 1 << 20;
/** The frame that every page is mapped to by default. */
const FRAME = 5;
/** The frame that large ranges are mapped to, on their own alignment. */
const ALIGNED_FRAME = 64 * 2 ** 20;

/** Bytes of a journal: some 65 000 entries. */
const JOURNAL_BYTES = 4 << 20;

/** What outlives the process: nothing, where the queue stands, or all that the guest has done. */
export type Kept = "nothing" | "position" | "journal";

/** What is measured. */
export interface RingOptions {
  /** What outlives the process; nothing by default. */
  readonly kept?: Kept;
  /** Whether the ring is a packed one, used in order; a split one by default. */
  readonly isPacked?: boolean;
  /** Makes the device. */
  readonly make?: (options: DeviceOptions) => IommuDevice;
}

/** A device with one endpoint in domain 1, and its driver. */
export class RingDriver {
  readonly device: IommuDevice;
  readonly #words: Int32Array;
  readonly #driver: SplitDriverQueue | PackedDriverQueue;
  readonly #queue: SplitQueue | PackedQueue;
  /** First pages of the batch to send; the caller fills them in. */
  readonly pages: Float64Array<ArrayBuffer> = new Float64Array(BATCH);
  /** Milliseconds that the device has taken so far. */
  deviceMs = 0;
  /** Called while the device holds its answers until an IOTLB listener has acknowledged. */
  onHeld: () => void = () => {};

  /** A device that is attached, and a ring without requests. */
  constructor(options: RingOptions = {}) {
    const { kept = "nothing", isPacked = false, make = (all) => new IommuDevice(all) } = options;
    this.device = make({ ...DEFAULT_OPTIONS, maxTableMemory: 2 ** 32 - 4096 });
    const buffer = new ArrayBuffer(MEMORY_SIZE);
    this.#words = new Int32Array(buffer);
    const memory = new GuestMemory();
    const region = { guestAddress: 0, size: MEMORY_SIZE, buffer, offset: 0 };
    memory.add(region);
    if (kept === "journal") {
      const problem = this.device.journal.takeOver(Journal.open(new ArrayBuffer(JOURNAL_BYTES)));
      if (problem !== undefined) throw new Error(problem);
    }
    this.device.memoryAdded(region);
    this.device.featuresAgreed(~0, 0);
    const setup = { space: memory, address: 0, size: 2 * BATCH, inOrder: isPacked };
    this.#driver = isPacked ? new PackedDriverQueue(setup) : new SplitDriverQueue(setup);
    this.#queue = isPacked ? new PackedQueue(memory) : new SplitQueue(memory);
    const record = kept === "position"
      ? new PositionRecord(new Int32Array(POSITION_RECORD_BYTES / 4))
      : this.device.queueRecord(0) ?? null;
    this.#queue.configure({
      record,
      inOrder: isPacked,
      size: 2 * BATCH,
      descriptors: this.#driver.descriptors,
      driverArea: this.#driver.driverArea,
      deviceArea: this.#driver.deviceArea,
    });
    new Uint8Array(buffer).set(attachRequest(1, 8), REQUESTS);
    this.#send(1, 20);
  }

  /** Maps {@linkcode pages}, `count` of them, each `span` pages long. */
  map(count = BATCH, span = 1): void {
    this.#fill(T_MAP, count, span);
    this.#send(count, 36);
  }

  /** Unmaps {@linkcode pages}, `count` of them, each `span` pages long. */
  unmap(count = BATCH, span = 1): void {
    this.#fill(T_UNMAP, count, span);
    this.#send(count, 28);
  }

  #fill(type: number, count: number, span: number): void {
    const words = this.#words;
    for (let slot = 0; slot < count; slot++) {
      const at = (REQUESTS + slot * STRIDE) / 4;
      const first = this.pages[slot];
      putRange(words, at, type, 1, first, first + span - 1);
      if (type === T_MAP) {
        putTarget(words, at, span === 1 ? FRAME : ALIGNED_FRAME, MAP_F_READ | MAP_F_WRITE);
      } else {
        // The reserved field.
        words[at + 6] = 0;
      }
    }
  }

  #send(count: number, length: number): void {
    const driver = this.#driver;
    for (let slot = 0; slot < count; slot++) {
      driver.begin();
      driver.addReadable(REQUESTS + slot * STRIDE, length);
      driver.addWritable(REQUESTS + slot * STRIDE + 64, 4);
      driver.commit();
    }
    driver.kick();
    const start = performance.now();
    this.device.service(0, this.#queue, count);
    while (this.device.holds) {
      this.onHeld();
      this.device.service(0, this.#queue, count);
    }
    const { journal } = this.device;
    if (journal.wantsSnapshot) journal.snapshotKept(journal.takeSnapshot());
    this.deviceMs += performance.now() - start;
    for (let slot = 0; slot < count; slot++) {
      if (!driver.reap() || (this.#words[(REQUESTS + slot * STRIDE + 64) / 4] & 0xff) !== 0) {
        throw new Error(`Cannot go on: request ${slot} was not answered with OK`);
      }
    }
  }
}

/** First page of the mappings that stay. */
const LIVE_FIRST = 2 ** 21;

/** Which page the i-th of `live` mappings has: spread over four times as many, in random-looking order. */
export function livePage(i: number, live: number): number {
  // An odd multiplier visits each residue of a power of two once.
  return LIVE_FIRST + (((i * 0x9e3779b1) >>> 0) % live) * 4 + 1;
}

/** A device with `live` one-page mappings, and pairs of MAP and UNMAP between them. */
export class PairBench {
  readonly driver: RingDriver;
  readonly #live: number;
  #turn = 0;

  /** @param live Mappings that stay, a power of two. */
  constructor(live: number, options?: RingOptions) {
    this.driver = new RingDriver(options);
    this.#live = live;
    for (let i = 0; i < live; i += BATCH) {
      for (let slot = 0; slot < BATCH; slot++) this.driver.pages[slot] = livePage(i + slot, live);
      this.driver.map();
    }
    this.driver.deviceMs = 0;
  }

  /** The same, one request after another, each sent when the one before was answered. */
  runOneByOne(): void {
    for (let i = 0; i < BATCH; i++) {
      this.driver.pages[0] = livePage(++this.#turn, this.#live) + 2;
      this.driver.map(1);
      this.driver.unmap(1);
    }
  }

  /** Maps a batch of pages between the live ones, and unmaps them. */
  run(): void {
    this.#turn += BATCH;
    for (let slot = 0; slot < BATCH; slot++) {
      this.driver.pages[slot] = livePage(this.#turn + slot, this.#live) + 2;
    }
    this.driver.map();
    this.driver.unmap();
  }
}
