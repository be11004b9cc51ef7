/**
 * One request to a block device, from its header to its status, a piece at a time.
 *
 * Source: virtio 1.4, section 5.2.6. The readable part begins with a header of 16 bytes, the writable part ends with a
 * status of one byte; the bytes between are data. How they are split into descriptors has no meaning.
 *
 * A buffer that the endpoint cannot access ends the request with IOERR before anything is read or written. If that
 * buffer is the status itself, nothing is written.
 */
import { PAGE_SIZE } from "../../address.ts";
import { Chain } from "../../../vring/mod.ts";
import { IoVectors } from "../../host/mod.ts";
import type { BlockDisk } from "./disk.ts";
import {
  HEADER_SIZE,
  ID_SIZE,
  RANGE_SECTORS_MAX,
  RANGE_SIZE,
  RANGE_UNMAP,
  RANGES_MAX,
  S_IOERR,
  S_OK,
  S_UNSUPP,
  SECTOR,
  T_DISCARD,
  T_FLUSH,
  T_GET_ID,
  T_IN,
  T_OUT,
  T_WRITE_ZEROES,
} from "./wire.ts";
import { collect, isAccessible, noteWritten } from "../chain_access.ts";
import { type DmaCounters, PIECE_BYTES } from "../endpoint_device.ts";

/** Bytes checked in one step: so many translations take some 50 µs. */
const CHECK_BYTES = 64 * PAGE_SIZE;
/** Pieces of memory in one call to the host. */
const VECTORS = 256;

/** No request is under way. */
const IDLE = 0;
/** Checking that the data can be accessed. */
const CHECKING = 5;
/** Reading or writing sectors. */
const MOVING = 1;
/** Discarding or zeroing ranges. */
const CHANGING = 2;
/** Syncing the disk, on another thread. */
const SYNCING = 3;
/** The status is known. */
const ENDING = 4;

/** A request under way; reused for the next one. */
export class BlockRequest {
  /** The descriptors of the request. */
  readonly chain: Chain = new Chain();
  /**
   * After the last step: bytes from the first writable one on that were written (2.7.8.2). The status comes behind
   * the data, so it counts only where all of the data were written.
   */
  usedLength = 0;
  readonly #disk: BlockDisk;
  readonly #counters: DmaCounters;
  readonly #onSynced: () => void;
  readonly #header = new Uint8Array(HEADER_SIZE + RANGES_MAX * RANGE_SIZE);
  readonly #view = new DataView(this.#header.buffer);
  readonly #status = new Uint8Array(1);
  readonly #vectors = new IoVectors(VECTORS);
  #phase = IDLE;
  #type = 0;
  /** Byte of the disk at which the data begin. */
  #offset = 0;
  /** Bytes of data, or ranges. */
  #total = 0;
  /** How many of those are done. */
  #done = 0;
  /** Bytes of the range under way that are done. */
  #rangeDone = 0;
  /** Bytes of data written to the chain, from the first writable one on. */
  #written = 0;
  /** Number of the sync that is awaited: the result of an abandoned request's sync is ignored. */
  #syncs = 0;

  /** @param onSynced Called when the disk is stable: the next step will be the last. */
  constructor(disk: BlockDisk, counters: DmaCounters, onSynced: () => void) {
    this.#disk = disk;
    this.#counters = counters;
    this.#onSynced = onSynced;
  }

  /** Whether a request is under way. */
  get isUnderWay(): boolean {
    return this.#phase !== IDLE;
  }

  /** Whether it waits for the disk, so that a step would do nothing. */
  get waits(): boolean {
    return this.#phase === SYNCING;
  }

  /** Begins the request in the chain. */
  begin(): void {
    this.usedLength = 0;
    this.#done = 0;
    this.#rangeDone = 0;
    this.#written = 0;
    this.#end(S_IOERR);
    const { chain } = this;
    if (chain.writableLength === 0 || chain.readableLength < HEADER_SIZE) return;
    // Copied once, so that the driver cannot change it after it was checked.
    const length = Math.min(chain.readableLength, this.#header.length);
    this.#type = chain.gather(this.#header, 0, HEADER_SIZE) === HEADER_SIZE
      ? this.#view.getUint32(0, true)
      : -1;
    switch (this.#type) {
      case -1:
        return;
      case T_IN:
        return this.#beginMove(chain.writableLength - 1);
      case T_OUT:
        return this.#beginMove(chain.readableLength - HEADER_SIZE);
      case T_DISCARD:
      case T_WRITE_ZEROES:
        return this.#beginChange(length - HEADER_SIZE);
      case T_FLUSH:
        return this.#beginSync();
      case T_GET_ID:
        return this.#giveId();
      default:
        this.#end(S_UNSUPP);
    }
  }

  /**
   * Does a piece of the request.
   *
   * @returns whether it is complete; then its status is written and `usedLength` is valid.
   */
  step(): boolean {
    if (this.#phase === CHECKING) this.#check();
    if (this.#phase === MOVING) this.#move();
    else if (this.#phase === CHANGING) this.#change();
    if (this.#phase !== ENDING) return false;
    this.#writeStatus();
    this.#phase = IDLE;
    this.#counters.requests++;
    return true;
  }

  /** Completes the request at once: the queue is about to stop. */
  finish(): void {
    if (this.#phase === SYNCING) {
      this.#syncs++;
      this.#end(this.#disk.image.sync() === 0 ? S_OK : S_IOERR);
    }
    while (!this.step());
  }

  /** Drops the request without an answer. */
  abandon(): void {
    this.#syncs++;
    this.#phase = IDLE;
  }

  #beginMove(length: number): void {
    const disk = this.#disk;
    // 5.2.6.2: a write to a read-only device is IOERR and writes nothing.
    if (this.#type === T_OUT && disk.readOnly) return;
    const sector = this.#sector(8);
    if (length % SECTOR !== 0 || !disk.has(sector, length / SECTOR)) return;
    this.#offset = sector * SECTOR;
    this.#total = length;
    this.#phase = CHECKING;
  }

  /** Checks a piece of the data, and after the last piece the status: nothing is moved unless all can be accessed. */
  #check(): void {
    const { chain } = this;
    const write = this.#type === T_IN;
    const length = Math.min(this.#total - this.#done, CHECK_BYTES);
    const from = (write ? 0 : HEADER_SIZE) + this.#done;
    if (!isAccessible(chain, write, from, length)) return this.#end(S_IOERR);
    this.#done += length;
    if (this.#done < this.#total) return;
    if (!this.#hasStatus()) return this.#end(S_IOERR);
    this.#done = 0;
    if (this.#total === 0) this.#end(S_OK);
    else this.#phase = MOVING;
  }

  /** Whether the status can be written. */
  #hasStatus(): boolean {
    return isAccessible(this.chain, true, this.chain.writableLength - 1, 1);
  }

  #move(): void {
    const { chain } = this;
    const write = this.#type === T_IN;
    const from = (write ? 0 : HEADER_SIZE) + this.#done;
    const wanted = Math.min(this.#total - this.#done, PIECE_BYTES);
    const vectors = this.#vectors;
    if (!collect(chain, write, from, wanted, vectors)) return this.#end(S_IOERR);
    const at = this.#offset + this.#done;
    const moved = write
      ? this.#disk.image.read(vectors, at)
      : this.#disk.image.write(vectors, at, this.#disk.writesStable);
    // 0: the image is shorter than it was when it was opened.
    if (moved <= 0) return this.#end(S_IOERR);
    if (write) {
      noteWritten(chain, from, moved);
      this.#written += moved;
      this.#counters.writtenBytes += moved;
    } else {
      this.#counters.readBytes += moved;
    }
    this.#done += moved;
    if (this.#done === this.#total) this.#end(S_OK);
  }

  /** All ranges are checked before the first one is touched. */
  #beginChange(length: number): void {
    const disk = this.#disk;
    if (disk.readOnly) return;
    const whole = this.chain.readableLength - HEADER_SIZE;
    if (whole !== length || length === 0 || length % RANGE_SIZE !== 0) return;
    if (!isAccessible(this.chain, false, HEADER_SIZE, length) || !this.#hasStatus()) return;
    this.chain.gather(this.#header, HEADER_SIZE, length, HEADER_SIZE);
    this.#counters.readBytes += length;
    const known = this.#type === T_WRITE_ZEROES ? RANGE_UNMAP : 0;
    for (let at = HEADER_SIZE; at < HEADER_SIZE + length; at += RANGE_SIZE) {
      const sectors = this.#view.getUint32(at + 8, true);
      // 5.2.6.2: unknown flags, and the unmap flag of a discard, are UNSUPP.
      if ((this.#view.getUint32(at + 12, true) & ~known) !== 0) return this.#end(S_UNSUPP);
      if (sectors > RANGE_SECTORS_MAX || !disk.has(this.#sector(at), sectors)) return;
    }
    this.#total = length / RANGE_SIZE;
    this.#phase = CHANGING;
  }

  #change(): void {
    const at = HEADER_SIZE + this.#done * RANGE_SIZE;
    const offset = this.#sector(at) * SECTOR + this.#rangeDone;
    const length = this.#view.getUint32(at + 8, true) * SECTOR - this.#rangeDone;
    const result = length === 0 ? 0 : this.#changeRange(at, offset, length);
    if (result < 0) return this.#end(S_IOERR);
    this.#rangeDone += result;
    if (result < length) return;
    this.#rangeDone = 0;
    this.#done++;
    if (this.#done === this.#total) this.#end(S_OK);
  }

  #changeRange(at: number, offset: number, length: number): number {
    if (this.#type === T_DISCARD) {
      return this.#disk.discard(offset, length) === 0 ? length : -1;
    }
    const mayUnmap = (this.#view.getUint32(at + 12, true) & RANGE_UNMAP) !== 0;
    const zeroed = this.#disk.zero(offset, length, mayUnmap);
    return zeroed === 0 ? -1 : zeroed;
  }

  #beginSync(): void {
    if (!this.#hasStatus()) return;
    this.#phase = SYNCING;
    const sync = ++this.#syncs;
    this.#disk.image.syncOnThread().catch(() => false).then((isStable) => {
      if (sync !== this.#syncs) return;
      this.#end(isStable ? S_OK : S_IOERR);
      this.#onSynced();
    });
  }

  #giveId(): void {
    const length = Math.min(ID_SIZE, this.chain.writableLength - 1);
    if (!isAccessible(this.chain, true, 0, length) || !this.#hasStatus()) return;
    if (this.chain.scatter(0, this.#disk.id, 0, length) !== length) return;
    this.#written = length;
    this.#counters.writtenBytes += length;
    this.#end(S_OK);
  }

  #end(status: number): void {
    this.#status[0] = status;
    this.#phase = ENDING;
  }

  #writeStatus(): void {
    const { chain } = this;
    const at = chain.writableLength - 1;
    this.usedLength = this.#written;
    if (at < 0 || chain.scatter(at, this.#status, 0, 1) !== 1) return;
    this.#counters.writtenBytes++;
    if (this.#written === at) this.usedLength++;
  }

  /** A sector number of 64 bits; one beyond 2^53 is inexact and beyond any disk. */
  #sector(at: number): number {
    return this.#view.getUint32(at + 4, true) * 0x1_0000_0000 + this.#view.getUint32(at, true);
  }
}
