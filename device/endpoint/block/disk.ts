/**
 * The disk behind a block device, as its requests use it.
 *
 * @module
 */
import { type ImageFile, IoVectors, UNSUPPORTED } from "../../host/mod.ts";
import { PIECE_BYTES } from "../endpoint_device.ts";
import { ID_SIZE, SECTOR } from "./wire.ts";

/** Zeros to write where the host cannot make them otherwise. */
const ZEROS = new Uint8Array(PIECE_BYTES);

/** An image with what a guest may do to it. Results are bytes, or an error number below 0. */
export class BlockDisk {
  /** Where the sectors are. */
  readonly image: ImageFile;
  /** Whether it can only be read. */
  readonly readOnly: boolean;
  /** Sectors of 512 bytes. */
  readonly sectors: number;
  /** The name a driver can ask for, filled up with zeros. */
  readonly id: Uint8Array<ArrayBuffer> = new Uint8Array(ID_SIZE);
  /** Whether each write has to be stable when it is answered: the driver cannot flush (5.2.6.2). */
  writesStable = true;
  readonly #zeros = new IoVectors(1);

  /**
   * A disk of the whole sectors of an image.
   *
   * @param serial Its name, of which at most 20 bytes count.
   */
  constructor(image: ImageFile, readOnly: boolean, serial: string) {
    this.image = image;
    this.readOnly = readOnly;
    this.sectors = Math.floor(image.size / SECTOR);
    this.id.set(new TextEncoder().encode(serial).subarray(0, ID_SIZE));
  }

  /** Whether sectors `[sector, sector + count)` exist. */
  has(sector: number, count: number): boolean {
    return sector <= this.sectors && count <= this.sectors - sector;
  }

  /** Makes bytes zero: all of them at once where the host can, else a piece. @returns how many, or an error. */
  zero(offset: number, length: number, mayUnmap: boolean): number {
    const error = mayUnmap ? this.image.punch(offset, length) : this.image.zero(offset, length);
    if (error === 0) return this.writesStable ? this.#stable(length) : length;
    if (error !== UNSUPPORTED) return error;
    this.#zeros.clear();
    this.#zeros.add(ZEROS, 0, Math.min(length, PIECE_BYTES));
    return this.image.write(this.#zeros, offset, this.writesStable);
  }

  /** Gives bytes back whose content does not matter; a host that cannot just keeps them. @returns 0 or an error. */
  discard(offset: number, length: number): number {
    const error = this.image.punch(offset, length);
    return error === UNSUPPORTED ? 0 : error;
  }

  #stable(length: number): number {
    const error = this.image.sync();
    return error < 0 ? error : length;
  }
}
