/**
 * A guest's memory, read out of the file that it is kept in.
 *
 * @module
 */
import type { TableReader } from "../../pagetable/mod.ts";

/** Reads table entries of a machine whose physical memory starts at offset 0 of a file. */
export class MemoryFile implements TableReader, Disposable {
  /** Low half of the entry loaded last. */
  low = 0;
  /** High half of the entry loaded last. */
  high = 0;

  readonly #file: Deno.FsFile;
  readonly #entry: Uint8Array<ArrayBuffer> = new Uint8Array(8);
  readonly #view: DataView<ArrayBuffer> = new DataView(this.#entry.buffer);

  /** Opens the file. */
  constructor(path: string) {
    this.#file = Deno.openSync(path, { read: true });
  }

  load(frame: number, index: number): boolean {
    this.#file.seekSync(frame * 4096 + index * 8, Deno.SeekMode.Start);
    if (this.#file.readSync(this.#entry) !== 8) return false;
    this.low = this.#view.getInt32(0, true);
    this.high = this.#view.getInt32(4, true);
    return true;
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.#file.close();
  }
}
