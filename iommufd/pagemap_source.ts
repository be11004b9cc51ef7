/**
 * This process's own memory as a source, with the host's frame numbers: `/proc/self/pagemap`.
 *
 * For inspection and tests. Unstable: the kernel may move a page at any time, nothing here can stop it, so a frame is
 * only what it was when the page was "pinned". Reading frame numbers takes CAP_SYS_ADMIN; without it the kernel shows 0,
 * which is answered with EPERM.
 *
 * An index is a page of the range handed over, ranges inclusive.
 *
 * @module
 */
import { EFAULT, type Errno, OK } from "./errno.ts";
import type { FrameBatch } from "./frame_batch.ts";
import { RAM, type SourceRegion, type UnstableSource } from "./memory_source.ts";
import { PagemapEntries, type PagemapReader, READ_ENTRIES } from "./pagemap.ts";

const PAGE_BYTES = 4096;

/** What a {@linkcode PagemapSource} may be told. */
export interface PagemapOptions {
  /** The memory itself, if it is to be read and written: it is also touched before pinning, so that it is there. */
  readonly bytes?: Uint8Array;
  /** Reads the page map; the process's own unless said. */
  readonly reader?: PagemapReader;
}

/** A range of this process's memory. */
export class PagemapSource implements UnstableSource {
  /** Frames have to be remembered. */
  readonly isStable = false;
  /** Pages of the range. */
  readonly pages: number;
  /** Kind of the run found: all is RAM. */
  readonly runKind: number = RAM;
  /** Frame of the run found: only pinning tells. */
  readonly runFrame: number = -1;
  /** Last index of the run found. */
  runLast = 0;
  /** Region of the run found: all is one. */
  readonly runRegion: SourceRegion;
  /** Pages pinned, as far as the engine is concerned. */
  pinnedPages = 0;

  readonly #firstPage: number;
  readonly #bytes: Uint8Array | null;
  readonly #reader: PagemapReader;
  readonly #entries: PagemapEntries;

  /** The range begins at virtual page `firstPage` (address / 4096). Opening the page map may throw as `Deno.openSync`. */
  constructor(firstPage: number, pages: number, options: PagemapOptions = {}) {
    if (!(firstPage >= 0 && pages > 0)) {
      throw new RangeError(`Cannot make a page map source: range is ${firstPage}, ${pages} pages`);
    }
    this.#firstPage = firstPage;
    this.pages = pages;
    this.runRegion = { id: 0, firstIndex: 0, lastIndex: pages - 1 };
    this.#bytes = options.bytes ?? null;
    this.#reader = options.reader ?? new OwnPagemap();
    this.#entries = new PagemapEntries(this.#reader);
  }

  /** Closes the page map. The source cannot pin afterwards. */
  close(): void {
    this.#reader.close?.();
  }

  /** Finds the run that an index begins: as far as is asked. */
  findRun(_index: number, last: number): void {
    this.runLast = last;
  }

  /** Reads frames from the page map, having touched the pages. EPERM without the right to see frames. */
  pin(firstIndex: number, lastIndex: number, into: FrameBatch): Errno {
    const count = Math.min(lastIndex - firstIndex + 1, READ_ENTRIES);
    this.#touch(firstIndex, count);
    const before = into.pages;
    const errno = this.#entries.append(this.#firstPage + firstIndex, count, into);
    this.pinnedPages += into.pages - before;
    return errno;
  }

  /** Forgets pins. */
  unpin(_frame: number, count: number): void {
    this.pinnedPages -= count;
  }

  /** None: memory is found by index only. */
  frameBytes(_frame: number): null {
    return null;
  }

  /** Copies bytes of the range, if the source was given them. */
  moveBytes(
    _region: SourceRegion,
    index: number,
    offset: number,
    bytes: Uint8Array,
    isWrite: boolean,
  ): Errno {
    const all = this.#bytes;
    const from = index * PAGE_BYTES + offset;
    if (all === null || from + bytes.length > all.length) return EFAULT;
    if (isWrite) all.set(bytes, from);
    else bytes.set(all.subarray(from, from + bytes.length));
    return OK;
  }

  /** Makes the kernel back the pages, by writing back what is there. */
  #touch(firstIndex: number, count: number): void {
    const bytes = this.#bytes;
    if (bytes === null) return;
    for (let index = firstIndex; index < firstIndex + count; index++) {
      const at = index * PAGE_BYTES;
      if (at < bytes.length) bytes[at] |= 0;
    }
  }
}

/** The page map of this process. */
class OwnPagemap implements PagemapReader {
  readonly #file = Deno.openSync("/proc/self/pagemap");

  readAt(position: number, target: Uint8Array): number {
    this.#file.seekSync(position, Deno.SeekMode.Start);
    return this.#file.readSync(target) ?? 0;
  }

  close(): void {
    this.#file.close();
  }
}
