/**
 * The entropy device (virtio device 4).
 *
 * Source: virtio 1.4, section 5.4. One queue of device-writable buffers, which the device fills with random bytes, at
 * least one in each (5.4.6.2). A buffer that the endpoint cannot write as far as it would be filled is returned empty.
 */
import { Chain, type Queue } from "../../vring/mod.ts";
import { isAccessible } from "./chain_access.ts";
import { DmaCounters, type Draining, type EndpointDevice, PIECE_BYTES } from "./endpoint_device.ts";
import type { RandomSource } from "./random_source.ts";

/** Virtio device id. */
const ENTROPY_ID = 4;

/** A source of random bytes behind the IOMMU. */
export class EntropyDevice implements EndpointDevice {
  readonly type = "rng";
  readonly deviceId: number = ENTROPY_ID;
  readonly featuresLow = 0;
  readonly featuresHigh = 0;
  readonly queueCount = 1;
  readonly queueSizeMax = 1024;
  readonly configSize = 0;
  readonly counters: DmaCounters = new DmaCounters();
  onProgress: () => void = () => {};
  readonly #source: RandomSource;
  readonly #chain = new Chain();
  #isDraining = false;
  readonly #bytes = new Uint8Array(PIECE_BYTES);

  /**
   * An entropy device.
   *
   * @param source Where the bytes come from.
   */
  constructor(source: RandomSource) {
    this.#source = source;
  }

  serve(_index: number, queue: Queue): boolean {
    const chain = this.#chain;
    let given = 0;
    let isAny = false;
    while (given < PIECE_BYTES && !this.#isDraining && queue.next(chain)) {
      isAny = true;
      const length = Math.min(chain.writableLength, PIECE_BYTES);
      const used = length > 0 && isAccessible(chain, true, 0, length) ? this.#give(length) : 0;
      queue.complete(chain, used);
      this.counters.requests++;
      // Small buffers cost time, too.
      given += length + 64;
    }
    if (isAny) queue.publish();
    return isAny;
  }

  #give(length: number): number {
    this.#source.fill(this.#bytes, length);
    const written = this.#chain.scatter(0, this.#bytes, 0, length);
    if (written !== length) return 0;
    this.counters.writtenBytes += length;
    return length;
  }

  isBusy(_index: number): boolean {
    return false;
  }

  isReady(_index: number): boolean {
    return false;
  }

  /** Every request is completed in the call that takes it. */
  drain(): Draining {
    this.#isDraining = true;
    return "drained";
  }

  close(): void {}

  readConfig(_target: Uint8Array, _offset: number): void {}

  writeConfig(_bytes: Uint8Array, _offset: number): void {}

  featuresAgreed(_low: number, _high: number): void {}

  memoryAdded(): void {}

  memoryRemoved(): void {}

  reset(): void {}

  queueStarted(): void {}

  queueStopped(): void {}
}
