/**
 * MAP and UNMAP through the whole device, from the ring to the table entries and back, without a guest.
 *
 * The driver's side runs in the same process and is part of what is measured: filling the ring, and
 * collecting the answers. A round is 128 requests, as many as a ring of 256 entries holds.
 */
import { GuestMemory, SplitDriverQueue, SplitQueue } from "../../vring/mod.ts";
import { IommuDevice } from "../../device/iommu_device.ts";
import { attachRequest } from "../../device/driver_requests.ts";
import { T_MAP, T_UNMAP } from "../../device/wire.ts";
import { DEFAULT_OPTIONS } from "../../tests/device/in_process_guest.ts";

/** Requests in one round. */
const ROUND = 128;
/** Bytes between two requests in guest memory: 64 for the readable part, 64 for the tail. */
const STRIDE = 128;
const REQUESTS = 0x10000;

/** A device and a driver that sends rounds of one-page MAPs or UNMAPs. */
class Rounds {
  readonly #bytes = new ArrayBuffer(1 << 20);
  readonly #words = new Int32Array(this.#bytes);
  readonly #memory = new GuestMemory();
  readonly #driver: SplitDriverQueue;
  readonly #queue: SplitQueue;
  readonly #device: IommuDevice;

  constructor(live: number) {
    this.#device = new IommuDevice({ ...DEFAULT_OPTIONS, maxTableMemory: 2 ** 30 });
    const region = {
      guestAddress: 0,
      size: 1 << 20,
      userAddress: 0,
      buffer: this.#bytes,
      offset: 0,
    };
    this.#memory.add(region);
    this.#device.memoryAdded(region);
    this.#device.featuresAgreed(~0, 0);
    this.#driver = new SplitDriverQueue({ space: this.#memory, address: 0, size: 256 });
    this.#queue = new SplitQueue(this.#memory);
    this.#queue.configure({
      size: 256,
      descriptors: this.#driver.descriptors,
      driverArea: this.#driver.driverArea,
      deviceArea: this.#driver.deviceArea,
    });
    new Uint8Array(this.#bytes).set(attachRequest(1, 8), REQUESTS);
    this.#send(1, 20);
    for (let i = 0; i < live; i += ROUND) {
      this.run(T_MAP, (slot) => LIVE_FIRST + scatter(i + slot, live));
    }
  }

  /** Sends a round of requests and collects the answers. */
  run(type: number, page: (slot: number) => number): void {
    const words = this.#words;
    for (let slot = 0; slot < ROUND; slot++) {
      const at = (REQUESTS + slot * STRIDE) / 4;
      const virt = page(slot);
      words[at] = type;
      words[at + 1] = 1;
      words[at + 2] = (virt % 2 ** 20) * 4096;
      words[at + 3] = virt / 2 ** 20;
      words[at + 4] = (virt % 2 ** 20) * 4096 + 4095;
      words[at + 5] = virt / 2 ** 20;
      words[at + 6] = type === T_MAP ? 0x5000 : 0;
      words[at + 7] = 0;
      words[at + 8] = 3;
    }
    this.#send(ROUND, type === T_MAP ? 36 : 28);
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
    this.#device.service(0, this.#queue, count);
    for (let slot = 0; slot < count; slot++) {
      if (!driver.reap() || (this.#words[(REQUESTS + slot * STRIDE + 64) / 4] & 0xff) !== 0) {
        throw new Error(`Cannot go on: request ${slot} was not answered with OK`);
      }
    }
  }
}

/** First page of the mappings. */
const LIVE_FIRST = 2 ** 21;

/** Spreads `live` mappings over four times as many pages, in a random-looking order. */
function scatter(i: number, live: number): number {
  return ((i * 0x9e3779b1) >>> 0) % Math.max(live, 1) * 4 + 1;
}

for (const live of [1e3, 1e4, 1e5, 1e6]) {
  let rounds: Rounds | undefined;
  let turn = 0;
  // A power of two, so that the odd multiplier of scatter() visits each number once.
  const count = 2 ** Math.round(Math.log2(live));
  Deno.bench({
    name: `MAP and UNMAP of ${ROUND} pages, ${live} live mappings`,
    group: "whole device",
    fn(b) {
      rounds ??= new Rounds(count);
      turn += ROUND;
      // Between the live mappings, so that the trees are searched at their full depth.
      const page = (slot: number) => LIVE_FIRST + scatter(turn + slot, count) + 2;
      b.start();
      rounds.run(T_MAP, page);
      rounds.run(T_UNMAP, page);
      b.end();
    },
  });
}

const store = new Int32Array(ROUND * 64);
Deno.bench({
  name: `calibration: ${ROUND} x 64 stores`,
  group: "whole device",
  baseline: true,
  fn() {
    for (let i = 0; i < store.length; i++) store[i] = i;
  },
});
