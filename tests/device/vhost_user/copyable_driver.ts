/**
 * A driver whose whole state can be copied, as a snapshot of a machine copies it: at most one chain is in flight.
 *
 * @module
 */

/** Entries of its ring. */
export const RING_SIZE = 16;
/** Where the parts of the ring are behind its first byte. */
const DRIVER_AREA = 0x400;
const DEVICE_AREA = 0x800;
/** Flags of descriptors (virtio 1.4, 2.7.5 and 2.8.1). */
const NEXT = 1;
const WRITE = 2;
const AVAIL_BIT = 7;
const USED_BIT = 15;

/** A buffer of a chain. */
export interface Buffer {
  readonly address: number;
  readonly length: number;
  readonly isWritable: boolean;
}

/** A driver of a split or packed ring. */
export class CopyableDriver {
  readonly address: number;
  readonly isPacked: boolean;
  readonly #data: DataView;
  /** Split: the available index; packed: the next slot. */
  #next = 0;
  #wrap = 1;
  /** Descriptors in flight. */
  #inFlight = 0;

  /** A ring in zeroed memory. */
  constructor(data: DataView, address: number, isPacked: boolean) {
    this.#data = data;
    this.address = address;
    this.isPacked = isPacked;
  }

  /** The places of SET_VRING_ADDR, guest-physical: descriptors, device area, driver area. */
  get places(): readonly [number, number, number] {
    return [this.address, this.address + DEVICE_AREA, this.address + DRIVER_AREA];
  }

  /** The base of the ring before it was used. */
  get freshBase(): number {
    return this.isPacked ? 0x8000_8000 : 0;
  }

  /** Whether a chain is in flight. */
  get isBusy(): boolean {
    return this.#inFlight > 0;
  }

  /** The same driver over a copy of its memory. */
  copy(data: DataView): CopyableDriver {
    const copy = new CopyableDriver(data, this.address, this.isPacked);
    copy.#next = this.#next;
    copy.#wrap = this.#wrap;
    copy.#inFlight = this.#inFlight;
    return copy;
  }

  /** Makes a chain available. */
  put(buffers: readonly Buffer[]): void {
    this.#inFlight = buffers.length;
    if (this.isPacked) this.#putPacked(buffers);
    else this.#putSplit(buffers);
  }

  /** The used length of the chain in flight, -1 while the device has it. */
  reap(): number {
    return this.isPacked ? this.#reapPacked() : this.#reapSplit();
  }

  #putSplit(buffers: readonly Buffer[]): void {
    const data = this.#data;
    buffers.forEach(({ address, length, isWritable }, i) => {
      const at = this.address + 16 * i;
      data.setBigUint64(at, BigInt(address), true);
      data.setUint32(at + 8, length, true);
      const flags = (isWritable ? WRITE : 0) | (i + 1 < buffers.length ? NEXT : 0);
      data.setUint16(at + 12, flags, true);
      data.setUint16(at + 14, i + 1, true);
    });
    const available = this.address + DRIVER_AREA;
    data.setUint16(available + 4 + 2 * (this.#next % RING_SIZE), 0, true);
    this.#next = (this.#next + 1) % 65536;
    data.setUint16(available + 2, this.#next, true);
  }

  #reapSplit(): number {
    const used = this.address + DEVICE_AREA;
    if (this.#inFlight === 0 || this.#data.getUint16(used + 2, true) !== this.#next) return -1;
    this.#inFlight = 0;
    return this.#data.getUint32(
      used + 4 + 8 * ((this.#next + 65535) % 65536 % RING_SIZE) + 4,
      true,
    );
  }

  #putPacked(buffers: readonly Buffer[]): void {
    const data = this.#data;
    buffers.forEach(({ address, length, isWritable }, i) => {
      const slot = (this.#next + i) % RING_SIZE;
      const wrap = this.#next + i < RING_SIZE ? this.#wrap : 1 - this.#wrap;
      const at = this.address + 16 * slot;
      data.setBigUint64(at, BigInt(address), true);
      data.setUint32(at + 8, length, true);
      data.setUint16(at + 12, 0, true);
      const flags = (isWritable ? WRITE : 0) | (i + 1 < buffers.length ? NEXT : 0) |
        wrap << AVAIL_BIT | (1 - wrap) << USED_BIT;
      data.setUint16(at + 14, flags, true);
    });
  }

  #reapPacked(): number {
    const at = this.address + 16 * this.#next;
    const flags = this.#data.getUint16(at + 14, true);
    const isUsed = (flags >> AVAIL_BIT & 1) === this.#wrap &&
      (flags >> USED_BIT & 1) === this.#wrap;
    if (this.#inFlight === 0 || !isUsed) return -1;
    if (this.#next + this.#inFlight >= RING_SIZE) this.#wrap = 1 - this.#wrap;
    this.#next = (this.#next + this.#inFlight) % RING_SIZE;
    this.#inFlight = 0;
    return this.#data.getUint32(at + 8, true);
  }
}
