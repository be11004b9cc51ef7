import { EOPNOTSUPP, type ImageFile, IoVectors } from "../../host/mod.ts";
import { PIECE_BYTES } from "../endpoint_device.ts";
import { ID_SIZE, SECTOR } from "./wire.ts";

/** Written where the host cannot zero otherwise. */
const ZEROS = new Uint8Array(PIECE_BYTES);

/** An image as a disk of sectors. */
export class BlockDisk {
  /** Holds the sectors. */
  readonly image: ImageFile;
  /** Whether it is read-only. */
  readonly readOnly: boolean;
  /** Sectors of 512 bytes. */
  readonly sectors: number;
  /** The id that a driver can read, padded with zeros. */
  readonly id: Uint8Array<ArrayBuffer> = new Uint8Array(ID_SIZE);
  /** Whether each write has to be stable before it is completed: the driver cannot flush (5.2.6.2). */
  writesStable = true;
  readonly #zeros = new IoVectors(1);

  /**
   * A disk of the whole sectors of an image.
   *
   * @param serial Its id, of which at most 20 bytes are used.
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

  /** Zeros bytes: all of them at once where the host can, else a piece. @returns how many; -1 if it failed. */
  zero(offset: number, length: number, mayUnmap: boolean): number {
    const error = mayUnmap ? this.image.punch(offset, length) : this.image.zero(offset, length);
    if (error === 0) return !this.writesStable || this.image.sync() === 0 ? length : -1;
    if (error !== EOPNOTSUPP) return -1;
    this.#zeros.clear();
    this.#zeros.add(ZEROS, 0, Math.min(length, PIECE_BYTES));
    return this.image.write(this.#zeros, offset, this.writesStable);
  }

  /** Discards bytes; a host that cannot keeps them. @returns 0 or an errno. */
  discard(offset: number, length: number): number {
    const error = this.image.punch(offset, length);
    return error === EOPNOTSUPP ? 0 : error;
  }
}
