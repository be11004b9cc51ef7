/**
 * Guest-physical memory as the front end shared it: a sorted table of regions, each mapped somewhere
 * in this process (vhost-user, "Memory region description").
 *
 * Addresses and sizes are bytes, as `number` below 2^53. A region covers
 * `[guestAddress, guestAddress + size - 1]`.
 *
 * **Removal.** A removed region's memory is about to be unmapped, and touching it then would end the
 * process. So a table change first changes {@linkcode GuestMemory.generation}, at which queues look
 * before they use a kept view. Only then it returns to the caller, which detaches the region's
 * `ArrayBuffer` (every view of it then has length 0) and unmaps the memory.
 */

import type { AddressSpace } from "./address_space.ts";
import type { DirtyLog } from "./dirty_log.ts";
import { PAGE_SIZE } from "./page.ts";

/** A piece of guest memory and where it is in this process. */
export interface MemoryRegion {
  /** First byte, guest-physical. */
  readonly guestAddress: number;
  /** Bytes. */
  readonly size: number;
  /** The mapped memory. */
  readonly buffer: ArrayBuffer;
  /** Index in `buffer` of the region's first byte; a multiple of 8. */
  readonly offset: number;
}

/** Why a region table was refused. */
export interface MemoryError {
  /**
   * What is wrong: the region is `empty`, `wrap`s past the last address that can be named, lies
   * outside its `buffer`, its `alignment` is off, it `overlap`s another, or is `missing`.
   */
  readonly kind: "empty" | "wrap" | "buffer" | "alignment" | "overlap" | "missing";
  /** The same for a log line, with the values. */
  readonly message: string;
}

/**
 * A region is viewed in windows of at most this many bytes, cut where guest addresses are multiples of
 * it. Indices into a view then are small integers; with one view of many gigabytes they are doubles,
 * and copying a request out takes twice as long.
 */
const WINDOW_BYTES = 2 ** 30;

interface Window {
  readonly first: number;
  readonly size: number;
  readonly bytes: Uint8Array;
  readonly data: DataView;
}

const NO_BYTES = new Uint8Array(0);
const NO_DATA = new DataView(NO_BYTES.buffer);
const NOWHERE: Window = {
  first: 0,
  size: 0,
  bytes: NO_BYTES,
  data: NO_DATA,
};

/** The guest's memory; see the module's text for what happens when regions go. */
export class GuestMemory implements AddressSpace {
  /** Changes with every change of the table. */
  generation = 1;
  bytes: Uint8Array = NO_BYTES;
  data: DataView = NO_DATA;
  offset = 0;
  /** Where writes through this space are logged, or null. */
  dirtyLog: DirtyLog | null = null;

  #regions: readonly MemoryRegion[] = [];
  /** The windows that were used, by region and by their place in it: there may be very many that never are. */
  #windows = new Map<MemoryRegion, Window[]>();
  #found: Window = NOWHERE;
  #fetched = 0;

  /** The regions, sorted by guest address. */
  get regions(): readonly MemoryRegion[] {
    return this.#regions;
  }

  /**
   * Adds a region.
   *
   * @param region The region; its buffer stays the caller's to unmap, after {@linkcode remove}.
   * @returns Nothing, or why it was refused; then nothing has changed.
   */
  add(region: MemoryRegion): MemoryError | undefined {
    return this.replace([...this.regions, region]);
  }

  /**
   * Takes out the region with this first byte and exactly this size.
   *
   * @returns The region, whose buffer may be detached and unmapped now, or why nothing was removed.
   */
  remove(guestAddress: number, size: number): MemoryRegion | MemoryError {
    const region = this.#regions.find((region) =>
      region.guestAddress === guestAddress && region.size === size
    );
    if (region === undefined) {
      return {
        kind: "missing",
        message: `Cannot remove memory region: no region of ${size} bytes is at ${
          hex(guestAddress)
        }`,
      };
    }
    this.#install(this.#regions.filter((other) => other !== region));
    return region;
  }

  /**
   * Puts a whole new table, in any order, in place of the old one, or leaves the old one as it is.
   *
   * @returns Nothing, or why it was refused; then nothing has changed.
   */
  replace(regions: readonly MemoryRegion[]): MemoryError | undefined {
    const sorted = [...regions].sort((a, b) => a.guestAddress - b.guestAddress);
    for (let i = 0; i < sorted.length; i++) {
      const error = checkRegion(sorted[i]);
      if (error !== undefined) return error;
      if (i > 0 && sorted[i - 1].guestAddress + sorted[i - 1].size > sorted[i].guestAddress) {
        return {
          kind: "overlap",
          message: `Cannot use memory region ${name(sorted[i])}: it overlaps ${
            name(sorted[i - 1])
          }`,
        };
      }
    }
    this.#install(sorted);
    return undefined;
  }

  /**
   * Finds where an address is. A region is readable and writable throughout. All regions lie below
   * 2^53, which `checkRegion` ensures, and a sum of 2^53 and more is rounded to no less: it is in none.
   */
  resolve(address: number, length: number, _write: boolean, page: number = 0): number {
    if (page !== 0) address += page * PAGE_SIZE;
    let window = this.#found;
    let into = address - window.first;
    // Not `into < 0 || into >= size`: an address that is no number must fail too.
    if (!(into >= 0 && into < window.size)) {
      window = this.#find(address);
      into = address - window.first;
      if (!(into >= 0 && into < window.size)) return 0;
      this.#found = window;
    }
    this.bytes = window.bytes;
    this.data = window.data;
    this.offset = into | 0;
    const left = window.size - into;
    return length < left ? length : left;
  }

  fetch(address: number): void {
    const { bytes, first, size } = this.#found;
    const into = address - first;
    // Kept, so that the read is not left out.
    if (into >= 0 && into < size) this.#fetched = bytes[into | 0];
  }

  written(
    address: number,
    length: number,
    page: number = 0,
    log: DirtyLog | null = this.dirtyLog,
  ): void {
    if (log !== null) log.mark(page * PAGE_SIZE + address, length);
  }

  #find(address: number): Window {
    const regions = this.#regions;
    let low = 0;
    let high = regions.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (regions[middle].guestAddress <= address) low = middle + 1;
      else high = middle;
    }
    if (low === 0) return NOWHERE;
    const region = regions[low - 1];
    if (address >= region.guestAddress + region.size) return NOWHERE;
    let windows = this.#windows.get(region);
    if (windows === undefined) this.#windows.set(region, windows = []);
    const number = Math.floor(address / WINDOW_BYTES) -
      Math.floor(region.guestAddress / WINDOW_BYTES);
    return windows[number] ??= windowAt(region, address);
  }

  #install(regions: readonly MemoryRegion[]): void {
    const kept = new Set(regions);
    for (const region of this.#regions) if (!kept.has(region)) this.#windows.delete(region);
    this.#regions = regions;
    this.#found = NOWHERE;
    this.bytes = NO_BYTES;
    this.data = NO_DATA;
    this.offset = 0;
    this.generation++;
  }
}

/** The window of a region that an address in it is in. */
function windowAt({ guestAddress, size, buffer, offset }: MemoryRegion, address: number): Window {
  const start = Math.floor(address / WINDOW_BYTES) * WINDOW_BYTES;
  const first = start < guestAddress ? guestAddress : start;
  const into = first - guestAddress;
  const length = Math.min(start + WINDOW_BYTES - first, size - into);
  return {
    first,
    size: length,
    bytes: new Uint8Array(buffer, offset + into, length),
    data: new DataView(buffer, offset + into, length),
  };
}

function checkRegion(region: MemoryRegion): MemoryError | undefined {
  const { guestAddress, size, buffer, offset } = region;
  const refused = `Cannot use memory region ${name(region)}`;
  if (size === 0) return { kind: "empty", message: `${refused}: its size is 0` };
  if (
    !(guestAddress >= 0 && size > 0 && guestAddress + size <= Number.MAX_SAFE_INTEGER)
  ) {
    return { kind: "wrap", message: `${refused}: it reaches beyond 2^53` };
  }
  if (guestAddress % 8 !== 0 || offset % 8 !== 0) {
    return {
      kind: "alignment",
      message: `${refused}: it has to start at a multiple of 8, also in its buffer: offset is ${
        hex(offset)
      }`,
    };
  }
  if (offset < 0 || offset + size > buffer.byteLength) {
    return {
      kind: "buffer",
      message: `${refused}: its buffer is too small: ${buffer.byteLength} bytes, offset ${
        hex(offset)
      }`,
    };
  }
  return undefined;
}

function name(region: MemoryRegion): string {
  return `${hex(region.guestAddress)}+${hex(region.size)}`;
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
