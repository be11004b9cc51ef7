/**
 * The page list over a stable source: pages are leased, and their frames asked for again whenever they are needed.
 *
 * The seed keeps frames in a store or reads them back from a page table because its source may not give the same
 * answer twice. A stable source does, so here the tiers shrink to one question, "is the page held", which the source's
 * lease counts answer: every area in a page table holds a lease and every access does. Pinning once, charging once and
 * letting go last hold as they do in {@linkcode ./pinned_pages.ts}; nothing is kept per page or per frame, and filling
 * a further page table reads no page table.
 *
 * Indexes are pages of the source, ranges inclusive.
 *
 * @module
 */
import { MMIO, type PageTable, type Protection } from "../pagetable/page_table.ts";
import { EINVAL, ENOENT, ENOMEM, EPERM, type Errno, OK } from "./errno.ts";
import { FREE_GROWTH, type Growth } from "./growth.ts";
import { IntervalTree } from "./interval_tree.ts";
import { DEVICE, type StableSource } from "./memory_source.ts";
import type { AreaSlice, PageList, TableHolder } from "./page_list.ts";
import type { PinBudget } from "./pin_budget.ts";

/** A page list over a stable source. */
export class LeasedPages implements PageList {
  /** See {@linkcode PageList.source}. */
  readonly source: StableSource;
  /** See {@linkcode PageList.isWritable}. */
  readonly isWritable: boolean;
  /** See {@linkcode PageList.budget}. */
  readonly budget: PinBudget | null;
  /** See {@linkcode PageList.pages}. */
  readonly pages: number;
  /** See {@linkcode PageList.areas}. */
  areas = 0;
  /** See {@linkcode PageList.lease}. */
  lease = 0;
  #pinned = 0;
  /** Accesses: the tag is the lease, the value 0. */
  readonly #accesses: IntervalTree;
  /** How often each access node was added beyond the first. */
  readonly #again: Map<number, number> = new Map();

  /** Made by `createPageList`. */
  constructor(
    source: StableSource,
    isWritable: boolean,
    budget: PinBudget | null,
    growth: Growth = FREE_GROWTH,
  ) {
    this.source = source;
    this.isWritable = isWritable;
    this.budget = budget;
    this.pages = source.pages;
    this.#accesses = new IntervalTree(growth);
  }

  /** See {@linkcode PageList.pinnedPages}. */
  get pinnedPages(): number {
    return this.#pinned;
  }

  /** See {@linkcode PageList.fillPageTables}. */
  fillPageTables(holder: TableHolder, area: AreaSlice): Errno {
    const lastIndex = area.index + (area.last - area.first);
    const held = this.#hold(area.index, lastIndex);
    if (held !== OK) return held;
    const tables = holder.tables;
    for (let at = 0; at < tables.length; at++) {
      const errno = this.fillPageTable(holder, tables[at], area, this.lease);
      if (errno === OK) continue;
      while (--at >= 0) tables[at].unmap(area.first, area.last);
      holder.onUnmapped?.();
      this.letGo(area, this.lease);
      return errno;
    }
    return OK;
  }

  /** See {@linkcode PageList.unfillPageTables}. */
  unfillPageTables(holder: TableHolder, area: AreaSlice, lease: number): void {
    const tables = holder.tables;
    for (let at = 0; at < tables.length; at++) tables[at].unmap(area.first, area.last);
    holder.onUnmapped?.();
    this.letGo(area, lease);
  }

  /** See {@linkcode PageList.fillPageTable}. */
  fillPageTable(holder: TableHolder, table: PageTable, area: AreaSlice, lease: number): Errno {
    const source = this.source;
    const protection = area.protection;
    const offset = area.index - area.first;
    const last = area.last;
    let page = area.first;
    while (page <= last) {
      source.findLeasedRun(lease, page + offset, last + offset);
      const kind = source.runKind;
      const frame = source.runFrame;
      let end = source.runLast;
      // Regions that touch and go on with the next frame make one run.
      while (end < last + offset) {
        source.findLeasedRun(lease, end + 1, last + offset);
        if (source.runKind !== kind || source.runFrame !== frame + (end + 1 - page - offset)) break;
        end = source.runLast;
      }
      const bits = kind === DEVICE ? protection | MMIO : protection;
      const errno = mapRun(table, page, end - offset, frame, bits, holder.isPageByPage);
      if (errno !== OK) {
        if (page > area.first) table.unmap(area.first, page - 1);
        return errno;
      }
      page = end - offset + 1;
    }
    return OK;
  }

  /** See {@linkcode PageList.unmapPageTable}. */
  unmapPageTable(table: PageTable, area: AreaSlice): void {
    table.unmap(area.first, area.last);
  }

  /** See {@linkcode PageList.letGo}. */
  letGo(area: AreaSlice, lease: number): void {
    this.#release(area.index, area.index + (area.last - area.first), lease);
  }

  /** See {@linkcode PageList.addAccess}. */
  addAccess(
    firstIndex: number,
    lastIndex: number,
    frames: Float64Array | null,
    isWrite: boolean,
  ): Errno {
    if (isWrite && !this.isWritable) return EPERM;
    const node = this.#find(firstIndex, lastIndex);
    if (node !== 0) {
      this.#again.set(node, (this.#again.get(node) ?? 0) + 1);
      if (frames !== null) {
        this.#readFrames(this.#accesses.tag[node], firstIndex, lastIndex, frames);
      }
      return OK;
    }
    if (this.#hasDevice(firstIndex, lastIndex)) return EINVAL;
    if (!this.#accesses.makeRoom()) return ENOMEM;
    const held = this.#hold(firstIndex, lastIndex);
    if (held !== OK) return held;
    this.#accesses.insert(firstIndex, lastIndex, this.lease, 0);
    if (frames !== null) this.#readFrames(this.lease, firstIndex, lastIndex, frames);
    return OK;
  }

  /** See {@linkcode PageList.removeAccess}. */
  removeAccess(firstIndex: number, lastIndex: number): Errno {
    const node = this.#find(firstIndex, lastIndex);
    if (node === 0) return ENOENT;
    const again = this.#again.get(node) ?? 0;
    if (again > 0) {
      if (again === 1) this.#again.delete(node);
      else this.#again.set(node, again - 1);
      return OK;
    }
    const lease = this.#accesses.tag[node];
    this.#accesses.remove(node);
    this.#release(firstIndex, lastIndex, lease);
    return OK;
  }

  /** See {@linkcode PageList.frameOf}. */
  frameOf(index: number): number {
    this.source.findRun(index, index);
    return this.source.runKind === DEVICE ? -1 : this.source.runFrame;
  }

  /** See {@linkcode PageList.readBytes}. */
  readBytes(lease: number, index: number, offset: number, target: Uint8Array): Errno {
    return this.source.readBytes(index, offset, target, lease);
  }

  /** See {@linkcode PageList.writeBytes}. */
  writeBytes(lease: number, index: number, offset: number, bytes: Uint8Array): Errno {
    return this.source.writeBytes(index, offset, bytes, lease);
  }

  /** See {@linkcode PageList.release}. */
  release(): void {
    if (this.areas !== 0 || this.#accesses.count !== 0 || this.#pinned !== 0) {
      throw new Error(
        `Cannot release page list: ${this.areas} areas, ${this.#accesses.count} accesses, ${this.#pinned} pages pinned`,
      );
    }
  }

  #find(firstIndex: number, lastIndex: number): number {
    const tree = this.#accesses;
    let node = tree.firstIn(firstIndex, lastIndex);
    while (node !== 0 && (tree.first[node] !== firstIndex || tree.last[node] !== lastIndex)) {
      node = tree.nextIn(node, firstIndex, lastIndex);
    }
    return node;
  }

  /** Leases a range, charging what nobody had leased first. */
  #hold(firstIndex: number, lastIndex: number): Errno {
    const budget = this.budget;
    let charged = 0;
    if (budget !== null) {
      charged = this.source.countUnleased(firstIndex, lastIndex);
      if (!budget.charge(charged)) return ENOMEM;
    }
    const lease = this.source.lease(firstIndex, lastIndex);
    if (lease === -1) {
      if (budget !== null) budget.uncharge(charged);
      return ENOMEM;
    }
    this.lease = lease;
    this.#pinned += this.source.newlyLeased;
    return OK;
  }

  #release(firstIndex: number, lastIndex: number, lease: number): void {
    const unpinned = this.source.endLease(firstIndex, lastIndex, lease);
    this.#pinned -= unpinned;
    if (this.budget !== null) this.budget.uncharge(unpinned);
  }

  #hasDevice(firstIndex: number, lastIndex: number): boolean {
    const { source } = this;
    for (let index = firstIndex; index <= lastIndex; index = source.runLast + 1) {
      source.findRun(index, lastIndex);
      if (source.runKind === DEVICE) return true;
    }
    return false;
  }

  #readFrames(lease: number, firstIndex: number, lastIndex: number, frames: Float64Array): void {
    const { source } = this;
    let index = firstIndex;
    while (index <= lastIndex) {
      source.findLeasedRun(lease, index, lastIndex);
      const end = source.runLast;
      for (let frame = source.runFrame; index <= end; index++, frame++) {
        frames[index - firstIndex] = frame;
      }
    }
  }
}

/** Maps one run in one table, a page at a time if large leaves are off. Undoes itself. */
export function mapRun(
  table: PageTable,
  first: number,
  last: number,
  frame: number,
  protection: Protection,
  isPageByPage: boolean,
): Errno {
  if (!isPageByPage) return table.map(first, last, frame, protection);
  for (let page = first; page <= last; page++) {
    const errno = table.map(page, page, frame + (page - first), protection);
    if (errno !== OK) {
      if (page > first) table.unmap(first, page - 1);
      return errno;
    }
  }
  return OK;
}
