/**
 * The block device (virtio device 2), backed by an image: reads, writes, flushes, discards and write-zeroes.
 *
 * Source: virtio 1.4, section 5.2. Each queue has one request under way, which is served in pieces, so that a large
 * request on one queue does not delay everything else.
 */
import type { Queue } from "../../../vring/mod.ts";
import type { BlockDisk } from "./disk.ts";
import { BlockRequest } from "./request.ts";
import {
  BLOCK_CONFIG_SIZE,
  BLOCK_ID,
  F_BLK_SIZE,
  F_DISCARD,
  F_FLUSH,
  F_MQ,
  F_RO,
  F_SEG_MAX,
  F_WRITE_ZEROES,
  RANGE_SECTORS_MAX,
  RANGES_MAX,
  SECTOR,
  SEGMENTS_MAX,
} from "./wire.ts";
import {
  DmaCounters,
  type Draining,
  type EndpointDevice,
  PIECE_BYTES,
} from "../endpoint_device.ts";

/** Cost of a request in a turn, in bytes, besides its data. */
const REQUEST_COST = 4096;

/** A disk behind the IOMMU. */
export class BlockDevice implements EndpointDevice {
  readonly type = "blk";
  readonly deviceId: number = BLOCK_ID;
  readonly featuresLow: number;
  readonly featuresHigh = 0;
  readonly queueCount: number;
  readonly queueSizeMax = 1024;
  readonly configSize: number = BLOCK_CONFIG_SIZE;
  readonly counters: DmaCounters = new DmaCounters();
  onProgress: () => void = () => {};
  readonly #disk: BlockDisk;
  readonly #config: Uint8Array;
  readonly #requests: readonly BlockRequest[];
  readonly #queues: (Queue | undefined)[] = [];
  #isDraining = false;

  /**
   * A device, which owns its disk.
   *
   * @param queues Number of queues, at least 1.
   */
  constructor(disk: BlockDisk, queues: number) {
    this.#disk = disk;
    this.queueCount = queues;
    this.featuresLow = F_SEG_MAX | F_BLK_SIZE | F_FLUSH | (queues > 1 ? F_MQ : 0) |
      (disk.readOnly ? F_RO : F_DISCARD | F_WRITE_ZEROES);
    this.#config = configOf(disk, queues);
    this.#requests = Array.from(
      { length: queues },
      () => new BlockRequest(disk, this.counters, () => this.onProgress()),
    );
  }

  serve(index: number, queue: Queue): boolean {
    const request = this.#requests[index];
    if (request.waits) return false;
    const { counters } = this;
    let spent = 0;
    let isAny = false;
    let isAnswered = false;
    while (spent < PIECE_BYTES && !request.waits) {
      if (!request.isUnderWay) {
        if (this.#isDraining || !queue.next(request.chain)) break;
        request.begin();
      }
      isAny = true;
      const before = counters.readBytes + counters.writtenBytes;
      if (request.step()) {
        queue.complete(request.chain, request.usedLength);
        isAnswered = true;
      }
      spent += counters.readBytes + counters.writtenBytes - before + REQUEST_COST;
    }
    if (isAnswered) queue.publish();
    return isAny;
  }

  isBusy(index: number): boolean {
    return this.#requests[index].isUnderWay;
  }

  isReady(index: number): boolean {
    const request = this.#requests[index];
    return request.isUnderWay && !request.waits;
  }

  drain(): Draining {
    this.#isDraining = true;
    return this.#requests.some((request) => request.isUnderWay) ? "under way" : "drained";
  }

  close(): void {
    this.#disk.image.close();
  }

  readConfig(target: Uint8Array, offset: number): void {
    target.set(this.#config.subarray(offset, offset + target.length));
  }

  /** Nothing in the config space can be written: CONFIG_WCE is not offered. */
  writeConfig(_bytes: Uint8Array, _offset: number): void {}

  featuresAgreed(low: number, _high: number): void {
    this.#disk.writesStable = (low & F_FLUSH) === 0;
  }

  memoryAdded(): void {}

  memoryRemoved(): void {}

  reset(): void {}

  queueStarted(index: number, queue: Queue): void {
    this.#queues[index] = queue;
  }

  /** Completes the request under way first: a machine that is stopped and resumed must not lose it. */
  queueStopped(index: number): void {
    const request = this.#requests[index];
    const queue = this.#queues[index];
    this.#queues[index] = undefined;
    if (!request.isUnderWay) return;
    if (queue === undefined || !queue.ready) {
      request.abandon();
      return;
    }
    request.finish();
    queue.complete(request.chain, request.usedLength);
    queue.publish();
  }
}

/** The config space (5.2.4). */
function configOf(disk: BlockDisk, queues: number): Uint8Array {
  const config = new Uint8Array(BLOCK_CONFIG_SIZE);
  const view = new DataView(config.buffer);
  view.setUint32(0, disk.sectors % 0x1_0000_0000, true);
  view.setUint32(4, Math.floor(disk.sectors / 0x1_0000_0000), true);
  view.setUint32(12, SEGMENTS_MAX, true);
  view.setUint32(20, SECTOR, true);
  view.setUint16(34, queues, true);
  if (disk.readOnly) return config;
  view.setUint32(36, RANGE_SECTORS_MAX, true);
  view.setUint32(40, RANGES_MAX, true);
  view.setUint32(44, 1, true); // discard_sector_alignment
  view.setUint32(48, RANGE_SECTORS_MAX, true);
  view.setUint32(52, RANGES_MAX, true);
  config[56] = 1; // write_zeroes_may_unmap
  return config;
}
