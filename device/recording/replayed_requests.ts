/**
 * The requests of a replay: gives them to a device as a queue would, in chains whose buffers are memory of this process, and
 * compares its answers with the recorded ones.
 *
 * They are gathered and served in stretches, so that the clock, which takes as long as a small request, can be read once for
 * many. Everything else that is replayed comes between stretches.
 */
import { Chain, GuestMemory } from "../../vring/mod.ts";
import { PAGE_SIZE } from "../address.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import { UNDER_WAY } from "../iommu/requests.ts";
import { READABLE_SIZE_MAX, T_MAP, T_UNMAP, TAIL_SIZE } from "../iommu/wire.ts";
import { differenceText } from "./difference.ts";
import type { RequestDecoder } from "./request_decoder.ts";

/** An address that is no memory: what could not be written then cannot be written now. */
const NOWHERE = 2 ** 40;
/** Offset of `probe_size` in the configuration space (virtio 1.4, 5.13.4). */
const PROBE_SIZE_AT = 32;

/** A request that waits for the end of its stretch, or what is said of it afterwards. */
class Slot {
  /** Its chain. */
  readonly chain = new Chain(2);
  /** Its readable part. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  type = 0;
  length = 0;
  status = 0;
  used = 0;
  /** Status and used length of today's answer. */
  nowStatus = 0;
  nowUsed = 0;
  /** Microseconds from the beginning of the recording. */
  time = 0;

  constructor(bytes: Uint8Array<ArrayBuffer>) {
    this.bytes = bytes;
  }
}

/** The requests of one replay. */
export class ReplayedRequests {
  /** Requests served. */
  served = 0;
  /** MAPs and UNMAPs among them. */
  mapsAndUnmaps = 0;
  /** Milliseconds that the device took for all of them. */
  milliseconds = 0;
  /** The first answer that is not the recorded one, in one line. */
  difference: string | undefined;
  readonly #device: IommuDevice;
  readonly #memory = new GuestMemory();
  readonly #slots: readonly Slot[];
  /** Where answers are written to. */
  readonly #writable: number;
  #waiting = 0;

  /** @param stretch How many requests are served between two looks at the clock at most. */
  constructor(device: IommuDevice, stretch: number) {
    this.#device = device;
    const config = new DataView(new ArrayBuffer(device.configSize));
    device.readConfig(new Uint8Array(config.buffer), 0);
    this.#writable = Math.ceil(stretch * READABLE_SIZE_MAX / PAGE_SIZE) * PAGE_SIZE;
    const answer = config.getUint32(PROBE_SIZE_AT, true) + TAIL_SIZE;
    const size = this.#writable + Math.ceil(answer / PAGE_SIZE) * PAGE_SIZE;
    const bytes = new Uint8Array(size);
    this.#memory.add({ guestAddress: 0, size, buffer: bytes.buffer, offset: 0 });
    this.#slots = Array.from(
      { length: stretch },
      (_, i) => new Slot(bytes.subarray(i * READABLE_SIZE_MAX, (i + 1) * READABLE_SIZE_MAX)),
    );
  }

  /** Adds a request to the stretch, which is served if it is full. */
  add(request: RequestDecoder, time: number): void {
    this.#take(request, time);
    if (this.#waiting === this.#slots.length) this.settle();
  }

  /** Serves the stretch. */
  settle(): void {
    const waiting = this.#waiting;
    if (waiting === 0) return;
    this.#waiting = 0;
    const { requests } = this.#device;
    const began = performance.now();
    for (let i = 0; i < waiting; i++) {
      const slot = this.#slots[i];
      let used = requests.serve(slot.chain);
      while (used === UNDER_WAY) used = requests.proceed(slot.chain);
      slot.nowUsed = used;
      slot.nowStatus = requests.status;
    }
    this.milliseconds += performance.now() - began;
    for (let i = 0; i < waiting; i++) this.#compare(this.#slots[i]);
  }

  /** Does what was done of a request that got no answer. */
  abandon(request: RequestDecoder): void {
    this.settle();
    const { chain } = this.#take(request, 0);
    this.#waiting = 0;
    const { requests } = this.#device;
    let used = requests.serve(chain);
    for (let left = request.pieces; left > 0 && used === UNDER_WAY; left--) {
      used = requests.proceed(chain);
    }
    requests.abandon();
  }

  /** Puts a request into the next slot. */
  #take({ bytes, type, length, room, status, used }: RequestDecoder, time: number): Slot {
    const slot = this.#slots[this.#waiting++];
    slot.bytes.set(bytes);
    slot.type = type;
    slot.length = length;
    slot.status = status;
    slot.used = used;
    slot.time = time;
    slot.chain.begin(this.#memory, 0, 2);
    slot.chain.push(slot.bytes.byteOffset, length, false);
    const isLost = used === 0 && type !== 0 && room >= TAIL_SIZE;
    slot.chain.push(isLost ? NOWHERE : this.#writable, room, true);
    return slot;
  }

  #compare(slot: Slot): void {
    this.served++;
    if (slot.type === T_MAP || slot.type === T_UNMAP) this.mapsAndUnmaps++;
    if (slot.nowUsed === slot.used && slot.nowStatus === slot.status) return;
    this.difference ??= differenceText(this.served, slot);
  }
}
