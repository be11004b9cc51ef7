import type { TableReader } from "../../pagetable/mod.ts";
import { type Address, addressText, PAGE_SIZE } from "../address.ts";
import { CommandError } from "./errors.ts";
import { attempt } from "./host_error.ts";

/** Pages that are kept: 64 MiB. */
const KEPT_PAGES = 16_384;
/** Frames beyond are in no file: their byte addresses are not exact as numbers. */
const LAST_FRAME = 2 ** 41 - 1;

/** A raw image of physical memory in a file, open until disposed of; only the pages are read that a walk comes to. */
export class TableImage implements TableReader, Disposable {
  /** Low half of the word that was loaded last. */
  low = 0;
  /** Its high half. */
  high = 0;

  readonly #file: Deno.FsFile;
  readonly #base: number;
  /** Pages of the file by their number, the one that was read first in front. */
  readonly #pages = new Map<number, DataView<ArrayBuffer>>();

  private constructor(file: Deno.FsFile, base: number) {
    this.#file = file;
    this.#base = base;
  }

  /**
   * Opens an image whose first byte is at the address `base`.
   *
   * @throws {CommandError} If it is no file that pages can be read from, or there is no such address.
   */
  static async open(path: string, base: Address): Promise<TableImage> {
    if (base.offset % 8 !== 0 || base.page > LAST_FRAME) {
      throw new CommandError(
        `Cannot read an image at --base ${addressText(base.page, base.offset)}: ` +
          "it must be a multiple of 8 below 2^53",
      );
    }
    return await attempt(`read ${path}`, async () => {
      const { isFile, isBlockDevice } = await Deno.stat(path);
      if (!isFile && !isBlockDevice) {
        throw new CommandError(`Cannot read ${path}: an image is a regular file or a block device`);
      }
      return new TableImage(await Deno.open(path), base.page * PAGE_SIZE + base.offset);
    });
  }

  /** Loads a 64-bit word of a table; false if the file does not have it. */
  load(frame: number, index: number): boolean {
    if (frame > LAST_FRAME) return false;
    const at = frame * PAGE_SIZE + index * 8 - this.#base;
    if (at < 0) return false;
    const offset = at % PAGE_SIZE;
    const page = this.#page((at - offset) / PAGE_SIZE);
    if (offset + 8 > page.byteLength) return false;
    this.low = page.getInt32(offset, true);
    this.high = page.getInt32(offset + 4, true);
    return true;
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.#file.close();
  }

  /** A page of the file; shorter at its end, empty beyond. */
  #page(number: number): DataView<ArrayBuffer> {
    const known = this.#pages.get(number);
    if (known !== undefined) return known;
    const bytes = new Uint8Array(PAGE_SIZE);
    this.#file.seekSync(number * PAGE_SIZE, Deno.SeekMode.Start);
    let length = 0;
    while (length < PAGE_SIZE) {
      const read = this.#file.readSync(bytes.subarray(length));
      if (read === null) break;
      length += read;
    }
    const page = new DataView(bytes.buffer, 0, length);
    if (this.#pages.size === KEPT_PAGES) {
      for (const first of this.#pages.keys()) {
        this.#pages.delete(first);
        break;
      }
    }
    this.#pages.set(number, page);
    return page;
  }
}
