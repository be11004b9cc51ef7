/**
 * The builder: one page table of any format, edited by map and unmap.
 *
 * Formats differ in data only ({@linkcode TableFormat}). `mapper.ts`, `unmapper.ts`, `table_tree.ts` and
 * `leaf_writer.ts` store the entries. Pages and frames are numbers of 4 KiB, ranges are inclusive.
 */
import { ENOMEM, EOPNOTSUPP, type Errno, OK } from "../errno.ts";
import type { TableFormat } from "../format.ts";
import { InvalidationGather } from "../invalidation.ts";
import { LeafWriter } from "./leaf_writer.ts";
import { Mapper } from "./mapper.ts";
import { DirtyScan, reportNothing, type ReportRange } from "./dirty_scan.ts";
import { type InterruptPages, PAGE_SHIFT, type PageTable, type Protection } from "../page_table.ts";
import { PAGE_WORDS_SHIFT, type TableMemory } from "../table_memory.ts";
import { TableTree } from "./table_tree.ts";
import { Unmapper } from "./unmapper.ts";

/** One page table in table memory; `createPageTable` makes it. */
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
  /** Changes since the last flush. */
  readonly gather: InvalidationGather;
  /** Pages inside the aperture that cannot be mapped, or null. */
  readonly interruptPages: InterruptPages | null;
  /** Frame of the top table: what device tables point to. */
  readonly rootFrame: number;
  /** Last page of the run that {@linkcode runAt} found, inclusive. */
  runLast: number = -1;

  readonly #tree: TableTree;
  readonly #leaves: LeafWriter;
  readonly #unmapper: Unmapper;
  readonly #mapper: Mapper;

  private constructor(format: TableFormat, memory: TableMemory, root: number) {
    this.format = format.name;
    this.description = format;
    this.firstPage = format.firstPage;
    this.lastPage = format.lastPage;
    this.lastFrame = 2 ** (format.outputBits - PAGE_SHIFT) - 1;
    this.leafOrders = format.leaves.map((leaf) => leaf.order);
    this.tracksDirty = format.dirtyBits !== null;
    this.interruptPages = format.interruptPages;
    this.gather = new InvalidationGather(memory);
    this.rootFrame = memory.baseFrame + root;
    this.#tree = new TableTree(format, memory, this.gather, root);
    this.#leaves = new LeafWriter(format, memory.words);
    this.#unmapper = new Unmapper(format, this.#tree, this.gather);
    this.#mapper = new Mapper(format, this.#tree, this.#leaves, this.#unmapper, this.gather);
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

  map(firstPage: number, lastPage: number, frame: number, protection: Protection): Errno {
    return this.#mapper.map(firstPage, lastPage, frame, protection);
  }

  unmap(firstPage: number, lastPage: number): number {
    const first = firstPage > this.firstPage ? firstPage : this.firstPage;
    const last = lastPage < this.lastPage ? lastPage : this.lastPage;
    if (first > last) return 0;
    return this.#unmapper.unmap(first, last);
  }

  frameAt(page: number): number {
    const tree = this.#tree;
    if (!(page >= this.firstPage && page <= this.lastPage)) return -1;
    const { words } = tree;
    let table = tree.leafTables.find(page);
    let level = 0;
    if (table === -1) {
      table = tree.root;
      level = tree.top;
    }
    for (;;) {
      const item = (table << PAGE_WORDS_SHIFT) +
        (((page * tree.scale[level]) & tree.mask[level]) << 1);
      const low = words[item];
      if ((low & tree.present) === 0) return -1;
      const high = words[item + 1];
      if ((low & tree.tableMask) !== tree.tableValues[level]) {
        if (level === 0) tree.leafTables.remember(page, table, tree.tablePages);
        return this.#leaves.frameOf(page, level, low, high);
      }
      table = tree.child(low, high);
      level--;
    }
  }

  flush(): void {
    this.gather.flush();
  }

  runAt(page: number, lastPage: number): number {
    const tree = this.#tree;
    if (!(page >= this.firstPage && page <= this.lastPage)) {
      this.runLast = page < this.firstPage && this.firstPage <= lastPage
        ? this.firstPage - 1
        : lastPage;
      return -1;
    }
    const last = lastPage < this.lastPage ? lastPage : this.lastPage;
    const { words } = tree;
    const { reach } = this.#tree;
    let table = tree.root;
    let level = tree.top;
    for (;;) {
      let index = (page * tree.scale[level]) & tree.mask[level];
      let low = words[(table << PAGE_WORDS_SHIFT) + (index << 1)];
      let high = words[(table << PAGE_WORDS_SHIFT) + (index << 1) + 1];
      const isMapped = (low & tree.present) !== 0;
      if (isMapped && (low & tree.tableMask) === tree.tableValues[level]) {
        table = tree.child(low, high);
        level--;
        continue;
      }
      const frame = isMapped ? this.#leaves.frameOf(page, level, low, high) : -1;
      let end = page - (page % reach[level]) + reach[level] - 1;
      while (end < last && index < tree.mask[level]) {
        index++;
        low = words[(table << PAGE_WORDS_SHIFT) + (index << 1)];
        high = words[(table << PAGE_WORDS_SHIFT) + (index << 1) + 1];
        if (((low & tree.present) !== 0) !== isMapped) break;
        if (isMapped) {
          if ((low & tree.tableMask) === tree.tableValues[level]) break;
          const next = this.#leaves.frameOf(end + 1, level, low, high);
          if (next !== frame + (end + 1 - page)) break;
        }
        end += reach[level];
      }
      this.runLast = end < last ? end : last;
      return frame;
    }
  }

  setDirtyTracking(on: boolean): Errno {
    this.#leaves.writesClean = on;
    if (!on) return this.tracksDirty ? OK : EOPNOTSUPP;
    return this.#scan(this.firstPage, this.lastPage, true, true, reportNothing);
  }

  readDirty(
    firstPage: number,
    lastPage: number,
    clear: boolean,
    report: ReportRange,
  ): Errno {
    return this.#scan(firstPage, lastPage, clear, true, report);
  }

  /** As {@linkcode readDirty}, for leaves that were used at all, read or written. */
  readAccessed(
    firstPage: number,
    lastPage: number,
    clear: boolean,
    report: ReportRange,
  ): Errno {
    return this.#scan(firstPage, lastPage, clear, false, report);
  }

  /**
   * Frees a bounded number of tables, in the end all but the root. Only for a table that is attached nowhere any more:
   * afterwards only this and {@linkcode destroy} may be called.
   *
   * @param tables how many to free, and at most the tables below one inner table more.
   * @returns whether only the root is left.
   */
  shrink(tables: number): boolean {
    const isOver = this.#tree.dropSome(tables);
    this.gather.flush();
    return isOver;
  }

  destroy(): void {
    this.#tree.destroy();
    this.gather.flush();
  }

  #scan(
    firstPage: number,
    lastPage: number,
    clear: boolean,
    ofWrites: boolean,
    report: ReportRange,
  ): Errno {
    const { dirtyBits } = this.description;
    if (dirtyBits === null) return EOPNOTSUPP;
    const first = Math.max(firstPage, this.firstPage);
    const last = Math.min(lastPage, this.lastPage);
    if (first > last) return OK;
    const scan = new DirtyScan(dirtyBits, this.#tree, this.gather, clear, ofWrites, report);
    scan.run(first, last);
    return OK;
  }
}
