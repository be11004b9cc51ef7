/**
 * The builder: one page table of any format, edited by map and unmap.
 *
 * Everything a format differs in is data ({@linkcode TableFormat}); the stores and their order are in
 * `table_tree.ts`, `leaf_writer.ts` and `unmapper.ts`. Pages and frames are numbers of 4 KiB, ranges inclusive.
 *
 * @module
 */
import { EADDRINUSE, EINVAL, ENOMEM, EOPNOTSUPP, ERANGE, type Errno, OK } from "../errno.ts";
import type { TableFormat } from "../format.ts";
import { InvalidationGather } from "../invalidation.ts";
import { LeafWriter } from "./leaf_writer.ts";
import { DirtyScan, reportNothing, type ReportRange } from "./dirty_scan.ts";
import { type InterruptPages, PAGE_SHIFT, type PageTable, type Protection } from "../page_table.ts";
import { PAGE_WORDS_SHIFT, type TableMemory } from "../table_memory.ts";
import { TableTree } from "./table_tree.ts";
import { Unmapper } from "./unmapper.ts";

/** One page table in table memory. Made by `createPageTable`. */
export class HardwareTable implements PageTable {
  /** Name of the format. */
  readonly format: string;
  /** First page that can be translated. */
  readonly firstPage: number;
  /** Last page that can be translated, inclusive. */
  readonly lastPage: number;
  /** Last frame that an entry can name, inclusive. */
  readonly lastFrame: number;
  /** Sizes of leaves as log2 of their pages, ascending; the first is the granule of every range. */
  readonly leafOrders: readonly number[];
  /** Whether entries record that they were written through. */
  readonly tracksDirty: boolean;
  /** The format's description with this table's geometry. */
  readonly description: TableFormat;
  /** What changed since the last flush; the owner of the table flushes it. */
  readonly gather: InvalidationGather;
  /** Pages inside the aperture that cannot be mapped; see {@linkcode PageTable.interruptPages}. */
  readonly interruptPages: InterruptPages | null;
  /** Frame of the top table: what device tables point to. */
  readonly rootFrame: number;
  /** Last page of the run that {@linkcode runAt} found, inclusive. */
  runLast: number = -1;

  readonly #memory: TableMemory;
  readonly #tree: TableTree;
  readonly #leaves: LeafWriter;
  readonly #unmapper: Unmapper;
  readonly #words: Int32Array<ArrayBuffer>;
  readonly #live: Int32Array<ArrayBuffer>;
  readonly #scale: Float64Array<ArrayBuffer>;
  readonly #mask: Int32Array<ArrayBuffer>;
  readonly #tableValues: Int32Array<ArrayBuffer>;
  readonly #present: number;
  readonly #tableMask: number;
  readonly #top: number;
  readonly #granule: number;
  readonly #onePage: boolean;
  readonly #interruptFirst: number;
  readonly #interruptLast: number;

  private constructor(format: TableFormat, memory: TableMemory, root: number) {
    this.format = format.name;
    this.description = format;
    this.firstPage = format.firstPage;
    this.lastPage = format.lastPage;
    this.lastFrame = 2 ** (format.outputBits - PAGE_SHIFT) - 1;
    this.leafOrders = format.leaves.map((leaf) => leaf.order);
    this.tracksDirty = format.marks !== null;
    this.interruptPages = format.interruptPages;
    this.gather = new InvalidationGather(memory);
    this.rootFrame = memory.baseFrame + root;
    this.#memory = memory;
    this.#tree = new TableTree(format, memory, this.gather, root);
    this.#leaves = new LeafWriter(format, memory.words);
    this.#unmapper = new Unmapper(format, memory, this.#tree, this.gather);
    this.#words = memory.words;
    this.#live = memory.liveEntries;
    this.#scale = this.#tree.scale;
    this.#mask = this.#tree.mask;
    this.#tableValues = this.#tree.tableValues;
    this.#present = format.present;
    this.#tableMask = format.tableMask;
    this.#top = this.#tree.top;
    this.#granule = 2 ** format.leaves[0].order;
    this.#onePage = format.leaves[0].level === 0 && format.leaves[0].items === 1;
    this.#interruptFirst = format.interruptPages?.first ?? Infinity;
    this.#interruptLast = format.interruptPages?.last ?? -1;
  }

  /** Makes an empty table, or answers ENOMEM without table memory for its root. */
  static create(format: TableFormat, memory: TableMemory): HardwareTable | Errno {
    const root = memory.allocate(format.rootOrder);
    return root === -1 ? ENOMEM : new HardwareTable(format, memory, root);
  }

  /** Pages of table memory in use, the root included; freed pages in quarantine are not. */
  get tablePages(): number {
    return this.#tree.tablePages;
  }

  /** Maps a range; see {@linkcode PageTable.map}. EINVAL for what is not on the granule. */
  map(firstPage: number, lastPage: number, frame: number, protection: Protection): Errno {
    if (!(firstPage >= this.firstPage && lastPage <= this.lastPage && firstPage <= lastPage)) {
      return firstPage > lastPage ? EINVAL : ERANGE;
    }
    const pages = lastPage - firstPage + 1;
    if (!(frame >= 0 && frame + pages - 1 <= this.lastFrame)) return ERANGE;
    if (firstPage <= this.#interruptLast && lastPage >= this.#interruptFirst) return ERANGE;
    if (!this.#leaves.expresses(protection)) return EOPNOTSUPP;
    if (pages === this.#granule && this.#onePage) return this.#mapOne(firstPage, frame, protection);
    const rest = this.#granule - 1;
    if ((firstPage & rest) !== 0 || (pages & rest) !== 0 || (frame & rest) !== 0) return EINVAL;
    if (
      this.#granule !== 1 && frame <= this.#interruptLast && frame + pages > this.#interruptFirst
    ) {
      return ERANGE;
    }
    if (this.#tree.occupied(firstPage, lastPage)) return EADDRINUSE;
    const mapped = this.#mapAround(firstPage, lastPage, frame, protection);
    if (mapped < pages) {
      if (mapped > 0) this.unmap(firstPage, firstPage + mapped - 1);
      return ENOMEM;
    }
    if (this.gather.recordsMaps) this.gather.addRange(firstPage, lastPage);
    return OK;
  }

  /** Removes what is mapped in a range; see {@linkcode PageTable.unmap}. */
  unmap(firstPage: number, lastPage: number): number {
    const first = firstPage > this.firstPage ? firstPage : this.firstPage;
    const last = lastPage < this.lastPage ? lastPage : this.lastPage;
    if (first > last) return 0;
    return this.#unmapper.unmap(first, last);
  }

  /** The frame behind a page, or -1; see {@linkcode PageTable.frameAt}. */
  frameAt(page: number): number {
    if (!(page >= this.firstPage && page <= this.lastPage)) return -1;
    const words = this.#words;
    let table = this.#tree.cachedLeafTable(page);
    let level = 0;
    if (table === -1) {
      table = this.#tree.root;
      level = this.#top;
    }
    for (;;) {
      const item = (table << PAGE_WORDS_SHIFT) +
        (((page * this.#scale[level]) & this.#mask[level]) << 1);
      const low = words[item];
      if ((low & this.#present) === 0) return -1;
      const high = words[item + 1];
      if ((low & this.#tableMask) !== this.#tableValues[level]) {
        if (level === 0) this.#tree.rememberLeafTable(page, table);
        return this.#leaves.frameOf(page, level, low, high);
      }
      table = this.#tree.child(low, high);
      level--;
    }
  }

  /** Tells the caches what was unmapped, and gives back table pages; see {@linkcode PageTable.flush}. */
  flush(): void {
    this.gather.flush();
  }

  /** The run of frames that a page begins, or -1; see {@linkcode PageTable.runAt}. */
  runAt(page: number, lastPage: number): number {
    if (!(page >= this.firstPage && page <= this.lastPage)) {
      this.runLast = page < this.firstPage && this.firstPage <= lastPage
        ? this.firstPage - 1
        : lastPage;
      return -1;
    }
    const last = lastPage < this.lastPage ? lastPage : this.lastPage;
    const words = this.#words;
    const { reach } = this.#tree;
    let table = this.#tree.root;
    let level = this.#top;
    for (;;) {
      let index = (page * this.#scale[level]) & this.#mask[level];
      let low = words[(table << PAGE_WORDS_SHIFT) + (index << 1)];
      let high = words[(table << PAGE_WORDS_SHIFT) + (index << 1) + 1];
      const isMapped = (low & this.#present) !== 0;
      if (isMapped && (low & this.#tableMask) === this.#tableValues[level]) {
        table = this.#tree.child(low, high);
        level--;
        continue;
      }
      const frame = isMapped ? this.#leaves.frameOf(page, level, low, high) : -1;
      let end = page - (page % reach[level]) + reach[level] - 1;
      while (end < last && index < this.#mask[level]) {
        index++;
        low = words[(table << PAGE_WORDS_SHIFT) + (index << 1)];
        high = words[(table << PAGE_WORDS_SHIFT) + (index << 1) + 1];
        if (((low & this.#present) !== 0) !== isMapped) break;
        if (isMapped) {
          if ((low & this.#tableMask) === this.#tableValues[level]) break;
          const next = this.#leaves.frameOf(end + 1, level, low, high);
          if (next !== frame + (end + 1 - page)) break;
        }
        end += reach[level];
      }
      this.runLast = end < last ? end : last;
      return frame;
    }
  }

  /** Starts or stops recording writes; see {@linkcode PageTable.setDirtyTracking}. */
  setDirtyTracking(on: boolean): Errno {
    this.#leaves.writesClean = on;
    if (!on) return this.tracksDirty ? OK : EOPNOTSUPP;
    return this.#scan(this.firstPage, this.lastPage, this.#pass(true, true, reportNothing));
  }

  /** Reports leaves written through; see {@linkcode PageTable.readDirty}. */
  readDirty(
    firstPage: number,
    lastPage: number,
    clear: boolean,
    report: ReportRange,
  ): Errno {
    return this.#scan(firstPage, lastPage, this.#pass(clear, true, report));
  }

  /** As {@linkcode readDirty}, for leaves that were used at all, read or written. */
  readAccessed(
    firstPage: number,
    lastPage: number,
    clear: boolean,
    report: ReportRange,
  ): Errno {
    return this.#scan(firstPage, lastPage, this.#pass(clear, false, report));
  }

  /**
   * Gives a bounded part of the table memory back, all but the root at last: of a table that is attached nowhere any
   * more, to be followed by nothing but this and {@linkcode destroy}.
   *
   * @param tables How many tables, and up to those below one inner table more.
   * @returns Whether only the root is left.
   */
  shrink(tables: number): boolean {
    const isOver = this.#tree.dropSome(tables);
    this.gather.flush();
    return isOver;
  }

  /** Gives all table memory back, by way of the gather, which is flushed. */
  destroy(): void {
    this.#tree.destroy();
    this.gather.flush();
  }

  #pass(clear: boolean, ofWrites: boolean, report: ReportRange): DirtyScan | null {
    const format = this.description;
    if (format.marks === null) return null;
    const tree = this.#tree;
    return new DirtyScan(format, tree, this.#memory, this.gather, clear, ofWrites, report);
  }

  #scan(firstPage: number, lastPage: number, pass: DirtyScan | null): Errno {
    if (pass === null) return EOPNOTSUPP;
    const first = Math.max(firstPage, this.firstPage);
    const last = Math.min(lastPage, this.lastPage);
    if (first <= last) pass.run(first, last);
    return OK;
  }

  #mapOne(page: number, frame: number, protection: Protection): Errno {
    const rest = this.#granule - 1;
    if (rest !== 0 && ((page & rest) !== 0 || (frame & rest) !== 0)) return EINVAL;
    const words = this.#words;
    let table = this.#tree.cachedLeafTable(page);
    if (table === -1) {
      table = this.#tree.reachTable(page, 0);
      if (table < 0) return table === -1 ? ENOMEM : EADDRINUSE;
      this.#tree.rememberLeafTable(page, table);
    }
    const item = (table << PAGE_WORDS_SHIFT) + (((page * this.#scale[0]) & this.#mask[0]) << 1);
    if ((words[item] & this.#present) !== 0) return EADDRINUSE;
    this.#leaves.writeOne(item, frame, protection);
    this.#live[table]++;
    if (this.gather.recordsMaps) this.gather.addRange(page, page + rest);
    return OK;
  }
  /** Maps an empty range, leaves that would touch interrupt frames split off; returns pages mapped. */
  #mapAround(firstPage: number, lastPage: number, frame: number, protection: Protection): number {
    const leaves = this.description.leaves.length;
    const pages = lastPage - firstPage + 1;
    const before = this.#interruptFirst - frame;
    const through = this.#interruptLast + 1 - frame;
    if (before >= pages || through <= 0) {
      return this.#mapEmpty(firstPage, lastPage, frame, protection, leaves);
    }
    let mapped = 0;
    if (before > 0) {
      mapped = this.#mapEmpty(firstPage, firstPage + before - 1, frame, protection, leaves);
      if (mapped < before) return mapped;
    }
    const inside = Math.min(through, pages) - mapped;
    const page = firstPage + mapped;
    const done = this.#mapEmpty(page, page + inside - 1, frame + mapped, protection, 1);
    mapped += done;
    if (done < inside || mapped === pages) return mapped;
    const after = frame + mapped;
    return mapped + this.#mapEmpty(firstPage + mapped, lastPage, after, protection, leaves);
  }

  /** Maps an empty range with the `usable` smallest sizes of leaves; returns pages mapped before ENOMEM. */
  #mapEmpty(
    firstPage: number,
    lastPage: number,
    firstFrame: number,
    protection: Protection,
    usable: number,
  ): number {
    const leaves = this.#leaves;
    let page = firstPage;
    while (page <= lastPage) {
      const frame = firstFrame + (page - firstPage);
      const size = leaves.choose(page, frame, lastPage - page + 1, usable);
      const level = leaves.levels[size];
      const index = (page * this.#scale[level]) & this.#mask[level];
      const room = this.#mask[level] + 1 - index;
      const count = leaves.countOf(size, page, frame, lastPage - page + 1, usable, room);
      const items = count * leaves.items[size];
      const whole = level < this.#top && items === this.#mask[level] + 1;
      // A table about to be filled whole is neither cleared nor reachable until it is complete.
      const table = whole ? this.#tree.makeUncleared() : this.#tree.reachTable(page, level);
      if (table === -1) break;
      if (!whole) {
        leaves.write((table << PAGE_WORDS_SHIFT) + (index << 1), size, count, frame, protection);
      } else {
        const parent = this.#tree.reachTable(page, level + 1);
        if (parent === -1) {
          this.#tree.unmake(table);
          break;
        }
        leaves.write(table << PAGE_WORDS_SHIFT, size, count, frame, protection);
        this.#tree.link(page, parent, level + 1, table);
      }
      this.#live[table] += items;
      page += count * leaves.pages[size];
    }
    return page - firstPage;
  }
}
