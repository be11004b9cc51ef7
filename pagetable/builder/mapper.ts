/** Mapping: checks a request, then writes leaves of the largest sizes that fit, and makes the tables for them. */
import { EADDRINUSE, EINVAL, ENOMEM, EOPNOTSUPP, ERANGE, type Errno, OK } from "../errno.ts";
import type { TableFormat } from "../format.ts";
import type { InvalidationGather } from "../invalidation.ts";
import { PAGE_SHIFT, type Protection } from "../page_table.ts";
import { PAGE_WORDS_SHIFT } from "../table_memory.ts";
import type { LeafWriter } from "./leaf_writer.ts";
import type { TableTree } from "./table_tree.ts";
import type { Unmapper } from "./unmapper.ts";

/** Adds mappings to one tree of tables. Pages are numbers of 4 KiB, ranges are inclusive. */
export class Mapper {
  readonly #tree: TableTree;
  readonly #leaves: LeafWriter;
  readonly #unmapper: Unmapper;
  readonly #gather: InvalidationGather;
  /** Sizes of leaves. */
  readonly #sizes: number;
  readonly #granule: number;
  readonly #onePage: boolean;
  readonly #firstPage: number;
  readonly #lastPage: number;
  readonly #lastFrame: number;
  readonly #interruptFirst: number;
  readonly #interruptLast: number;

  /** Works on `tree`; `unmapper` removes what a failed request has mapped. */
  constructor(
    format: TableFormat,
    tree: TableTree,
    leaves: LeafWriter,
    unmapper: Unmapper,
    gather: InvalidationGather,
  ) {
    this.#tree = tree;
    this.#leaves = leaves;
    this.#unmapper = unmapper;
    this.#gather = gather;
    this.#sizes = format.leaves.length;
    this.#granule = 2 ** format.leaves[0].order;
    this.#onePage = format.leaves[0].level === 0 && format.leaves[0].items === 1;
    this.#firstPage = format.firstPage;
    this.#lastPage = format.lastPage;
    this.#lastFrame = 2 ** (format.outputBits - PAGE_SHIFT) - 1;
    this.#interruptFirst = format.interruptPages?.first ?? Infinity;
    this.#interruptLast = format.interruptPages?.last ?? -1;
  }

  /** Maps a range, as `PageTable.map` says; EINVAL for what is not on the granule. */
  map(firstPage: number, lastPage: number, frame: number, protection: Protection): Errno {
    if (!(firstPage >= this.#firstPage && lastPage <= this.#lastPage && firstPage <= lastPage)) {
      return firstPage > lastPage ? EINVAL : ERANGE;
    }
    const pages = lastPage - firstPage + 1;
    if (!(frame >= 0 && frame + pages - 1 <= this.#lastFrame)) return ERANGE;
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
      if (mapped > 0) this.#unmapper.unmap(firstPage, firstPage + mapped - 1);
      return ENOMEM;
    }
    if (this.#gather.recordsMaps) this.#gather.addRange(firstPage, lastPage);
    return OK;
  }

  #mapOne(page: number, frame: number, protection: Protection): Errno {
    const tree = this.#tree;
    const rest = this.#granule - 1;
    if (rest !== 0 && ((page & rest) !== 0 || (frame & rest) !== 0)) return EINVAL;
    const { words } = tree;
    let table = tree.leafTables.find(page);
    if (table === -1) {
      table = tree.reachTable(page, 0);
      if (table === -1) return tree.occupied(page, page) ? EADDRINUSE : ENOMEM;
      tree.leafTables.remember(page, table, tree.tablePages);
    }
    const item = (table << PAGE_WORDS_SHIFT) + (((page * tree.scale[0]) & tree.mask[0]) << 1);
    if ((words[item] & tree.present) !== 0) return EADDRINUSE;
    this.#leaves.writeOne(item, frame, protection);
    tree.live[table]++;
    if (this.#gather.recordsMaps) this.#gather.addRange(page, page + rest);
    return OK;
  }

  /** Maps an empty range, leaves that would touch interrupt frames split off; returns pages mapped. */
  #mapAround(firstPage: number, lastPage: number, frame: number, protection: Protection): number {
    const leaves = this.#sizes;
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
    const tree = this.#tree;
    const leaves = this.#leaves;
    let page = firstPage;
    while (page <= lastPage) {
      const frame = firstFrame + (page - firstPage);
      const size = leaves.choose(page, frame, lastPage - page + 1, usable);
      const level = leaves.levels[size];
      const index = (page * tree.scale[level]) & tree.mask[level];
      const room = tree.mask[level] + 1 - index;
      const count = leaves.countOf(size, page, frame, lastPage - page + 1, usable, room);
      const items = count * leaves.items[size];
      const whole = level < tree.top && items === tree.mask[level] + 1;
      // A table about to be filled whole is neither cleared nor reachable until it is complete.
      const table = whole ? tree.make(false) : tree.reachTable(page, level);
      if (table === -1) break;
      if (!whole) {
        leaves.write((table << PAGE_WORDS_SHIFT) + (index << 1), size, count, frame, protection);
      } else {
        const parent = tree.reachTable(page, level + 1);
        if (parent === -1) {
          tree.unmake(table);
          break;
        }
        leaves.write(table << PAGE_WORDS_SHIFT, size, count, frame, protection);
        tree.link(page, parent, level + 1, table);
      }
      tree.live[table] += items;
      page += count * leaves.pages[size];
    }
    return page - firstPage;
  }
}
