/**
 * The page list over an unstable source: the seed's three storage tiers.
 *
 * A page is *nowhere* (not pinned), in the *store* (an access holds it) or in a *page table* (an area does, and the
 * frame is read back from the first page table of its address space); in store and page table at once it is still pinned
 * once. With page tables only, nothing is kept per page. Which tier, the two interval trees say (`spans.ts`);
 * frames move between tiers through the reader (`frame_reader.ts`) when something is filled, and are dropped by
 * `fill.ts`'s unfilling, which needs no memory.
 *
 * Pages are charged before they are pinned, by counting those that are nowhere. Indexes are pages of the list, ranges
 * inclusive.
 *
 * @module
 */
import type { PageTable } from "../pagetable/page_table.ts";
import { EBUSY, EINVAL, ENOENT, ENOMEM, EPERM, type Errno, OK } from "./errno.ts";
import { fillPageTable, fillPageTables, unfillPageTables } from "./fill.ts";
import { FrameBatch } from "./frame_batch.ts";
import { type FrameKeeper, FrameReader } from "./frame_reader.ts";
import { FrameStore } from "./frame_store.ts";
import type { Growth } from "./growth.ts";
import { IntervalTree } from "./interval_tree.ts";
import { DEVICE, RAM, type UnstableSource } from "./memory_source.ts";
import type { AreaSlice, PageList, TableHolder } from "./page_list.ts";
import type { PinBudget } from "./pin_budget.ts";
import { NOWHERE, STORE, TierSpans } from "./spans.ts";
import { fillFromStore, fillStore, unfillStore } from "./store_fill.ts";

/** Bytes of a page. */
const PAGE_BYTES = 4096;

/** Sizes of the buffers of a page list. */
export interface BatchSizes {
  /** Runs in a batch; 512 unless said. */
  readonly slots?: number;
  /** Pages pinned at once at most; 1024 unless said. */
  readonly chunkPages?: number;
}

/** A page list over an unstable source. */
export class PinnedPages implements PageList, FrameKeeper {
  /** See {@linkcode PageList.source}. */
  readonly source: UnstableSource;
  /** See {@linkcode PageList.isWritable}. */
  readonly isWritable: boolean;
  /** See {@linkcode PageList.budget}. */
  readonly budget: PinBudget | null;
  /** See {@linkcode PageList.pages}. */
  readonly pages: number;
  /** See {@linkcode PageList.areas}. */
  areas = 0;
  /** See {@linkcode PageList.lease}: not needed here, the trees know. */
  readonly lease = 0;
  /** Pages pinned by this list. */
  pinned = 0;
  /** Accesses; the tag is how often each was added. */
  readonly accessTree: IntervalTree;
  /** Areas in page tables; the tag is the slot of their holder, the value their first I/O page. */
  readonly areaTree: IntervalTree;
  /** See {@linkcode FrameKeeper.store}. */
  readonly store: FrameStore;
  /** Tells the tier of a page. */
  readonly spans: TierSpans;
  /** Gathers frames to fill with. */
  readonly reader: FrameReader;
  /** Gathers frames to let go of; made ahead, since that must not need memory. */
  readonly dropBatch: FrameBatch;

  #charged = 0;
  #isBusy = false;
  readonly #holders: (TableHolder | null)[] = [];
  readonly #holderAreas: number[] = [];

  /** Made by `createPageList`. */
  constructor(
    source: UnstableSource,
    isWritable: boolean,
    budget: PinBudget | null,
    growth: Growth,
    sizes: BatchSizes,
  ) {
    const slots = sizes.slots ?? 512;
    this.source = source;
    this.isWritable = isWritable;
    this.budget = budget;
    this.pages = source.pages;
    this.accessTree = new IntervalTree(growth);
    this.areaTree = new IntervalTree(growth);
    this.store = new FrameStore(growth);
    this.spans = new TierSpans(this.accessTree, this.areaTree);
    this.reader = new FrameReader(this, this.spans, slots, sizes.chunkPages ?? 1024);
    this.dropBatch = new FrameBatch(slots);
  }

  /** See {@linkcode PageList.pinnedPages}. */
  get pinnedPages(): number {
    return this.pinned;
  }

  /** Pages charged to the budget. */
  get chargedPages(): number {
    return this.#charged;
  }

  /** See {@linkcode PageList.fillPageTables}. */
  fillPageTables(holder: TableHolder, area: AreaSlice): Errno {
    if (this.#isBusy) return EBUSY;
    if (!this.areaTree.makeRoom()) return ENOMEM;
    const lastIndex = area.index + (area.last - area.first);
    if (!this.#charge(area.index, lastIndex)) return ENOMEM;
    this.#isBusy = true;
    const errno = fillPageTables(this, holder, area);
    if (errno === OK) {
      const slot = this.#holderSlot(holder);
      this.#holderAreas[slot]++;
      this.areaTree.insert(area.index, lastIndex, slot, area.first);
    }
    this.#isBusy = false;
    this.#settle();
    return errno;
  }

  /** See {@linkcode PageList.unfillPageTables}. */
  unfillPageTables(holder: TableHolder, area: AreaSlice, _lease: number): void {
    const slot = this.#holders.indexOf(holder);
    const lastIndex = area.index + (area.last - area.first);
    const node = this.areaTree.find(area.index, lastIndex, slot, area.first);
    this.areaTree.remove(node);
    if (--this.#holderAreas[slot] === 0) this.#holders[slot] = null;
    this.#isBusy = true;
    unfillPageTables(this, holder, area);
    this.#isBusy = false;
    this.#settle();
  }

  /** See {@linkcode PageList.fillPageTable}. */
  fillPageTable(holder: TableHolder, table: PageTable, area: AreaSlice, _lease: number): Errno {
    if (this.#isBusy) return EBUSY;
    this.#isBusy = true;
    const errno = fillPageTable(this, holder, table, area);
    this.#isBusy = false;
    return errno;
  }

  /** See {@linkcode PageList.unmapPageTable}. */
  unmapPageTable(table: PageTable, area: AreaSlice): void {
    table.unmap(area.first, area.last);
  }

  /** See {@linkcode PageList.letGo}: nothing that was unmapped unread can be let go here. */
  letGo(_area: AreaSlice, _lease: number): void {
    throw new TypeError("Cannot let go of pages of an unstable source without their frames");
  }

  /** See {@linkcode PageList.addAccess}. */
  addAccess(
    firstIndex: number,
    lastIndex: number,
    frames: Float64Array | null,
    isWrite: boolean,
  ): Errno {
    if (this.#isBusy) return EBUSY;
    if (isWrite && !this.isWritable) return EPERM;
    const { accessTree } = this;
    const node = this.findAccess(firstIndex, lastIndex);
    if (node !== 0) {
      accessTree.tag[node]++;
      if (frames !== null) fillFromStore(this, firstIndex, lastIndex, frames, 0);
      return OK;
    }
    if (this.#hasDevice(firstIndex, lastIndex)) return EINVAL;
    if (!accessTree.makeRoom() || !this.#charge(firstIndex, lastIndex)) return ENOMEM;
    this.#isBusy = true;
    const errno = fillStore(this, firstIndex, lastIndex, frames);
    this.#isBusy = false;
    if (errno === OK) accessTree.insert(firstIndex, lastIndex, 1, 0);
    this.#settle();
    return errno;
  }

  /** See {@linkcode PageList.removeAccess}. */
  removeAccess(firstIndex: number, lastIndex: number): Errno {
    const { accessTree } = this;
    const node = this.findAccess(firstIndex, lastIndex);
    if (node === 0) return ENOENT;
    if (--accessTree.tag[node] > 0) return OK;
    accessTree.remove(node);
    this.#isBusy = true;
    unfillStore(this, firstIndex, lastIndex);
    this.#isBusy = false;
    this.#settle();
    return OK;
  }

  /** The access of exactly this range, or 0. Accesses with the same range share one node. */
  findAccess(firstIndex: number, lastIndex: number): number {
    const tree = this.accessTree;
    let node = tree.firstIn(firstIndex, lastIndex);
    while (node !== 0 && (tree.first[node] !== firstIndex || tree.last[node] !== lastIndex)) {
      node = tree.nextIn(node, firstIndex, lastIndex);
    }
    return node;
  }

  /** See {@linkcode FrameKeeper.readTable}. */
  readTable(index: number, last: number, into: FrameBatch): number {
    const tree = this.areaTree;
    const node = tree.firstIn(index, index);
    const storage = this.#holders[tree.tag[node]]!.tables[0];
    const offset = tree.value[node] - tree.first[node];
    const end = Math.min(last, tree.last[node]);
    while (index <= end && into.append(storage.frameAt(index + offset), 1, RAM)) index++;
    return index;
  }

  /** See {@linkcode PageList.frameOf}. */
  frameOf(index: number): number {
    this.spans.find(index, index);
    if (this.spans.tier === NOWHERE) return -1;
    if (this.spans.tier === STORE) return this.store.at(index);
    const tree = this.areaTree;
    const node = tree.firstIn(index, index);
    const storage = this.#holders[tree.tag[node]]!.tables[0];
    return storage.frameAt(tree.value[node] - tree.first[node] + index);
  }

  /** See {@linkcode PageList.readBytes}. */
  readBytes(_lease: number, index: number, offset: number, target: Uint8Array): Errno {
    return this.#copyBytes(index, offset, target, false);
  }

  /** See {@linkcode PageList.writeBytes}. */
  writeBytes(_lease: number, index: number, offset: number, bytes: Uint8Array): Errno {
    return this.#copyBytes(index, offset, bytes, true);
  }

  /** Copies page by page, through the frame where one is known: that works when the source has gone. */
  #copyBytes(index: number, offset: number, bytes: Uint8Array, isWrite: boolean): Errno {
    const { source } = this;
    for (let done = 0; done < bytes.length; index++, offset = 0) {
      const part = bytes.subarray(done, done + Math.min(PAGE_BYTES - offset, bytes.length - done));
      const frame = this.frameOf(index);
      const memory = frame < 0 ? null : source.frameBytes(frame);
      let errno: Errno = OK;
      if (memory === null) {
        errno = isWrite
          ? source.writeBytes(index, offset, part, 0)
          : source.readBytes(index, offset, part, 0);
      } else if (isWrite) memory.set(part, offset);
      else part.set(memory.subarray(offset, offset + part.length));
      if (errno !== OK) return errno;
      done += part.length;
    }
    return OK;
  }

  /** See {@linkcode PageList.release}. */
  release(): void {
    if (
      this.areas !== 0 || this.areaTree.count !== 0 || this.accessTree.count !== 0 ||
      this.pinned !== 0 || this.store.count !== 0 || this.#charged !== 0
    ) {
      throw new Error(
        `Cannot release page list: ${this.areas} areas, ${this.accessTree.count} accesses, ${this.pinned} pages pinned, ${this.store.count} stored`,
      );
    }
  }

  /** Charges for the pages of a range that are nowhere. */
  #charge(firstIndex: number, lastIndex: number): boolean {
    if (this.budget === null) return true;
    const pages = this.#countUnpinned(firstIndex, lastIndex);
    if (!this.budget.charge(pages)) return false;
    this.#charged += pages;
    return true;
  }

  /** Takes back what was charged and is not pinned. */
  #settle(): void {
    if (this.budget === null) return;
    this.budget.uncharge(this.#charged - this.pinned);
    this.#charged = this.pinned;
  }

  #countUnpinned(firstIndex: number, lastIndex: number): number {
    const { spans, source } = this;
    let pages = 0;
    for (let index = firstIndex; index <= lastIndex; index = spans.last + 1) {
      spans.find(index, lastIndex);
      if (spans.tier !== NOWHERE) continue;
      for (let at = index; at <= spans.last; at = source.runLast + 1) {
        source.findRun(at, spans.last);
        if (source.runKind === RAM) pages += source.runLast - at + 1;
      }
    }
    return pages;
  }

  #hasDevice(firstIndex: number, lastIndex: number): boolean {
    const { source } = this;
    for (let index = firstIndex; index <= lastIndex; index = source.runLast + 1) {
      source.findRun(index, lastIndex);
      if (source.runKind === DEVICE) return true;
    }
    return false;
  }

  #holderSlot(holder: TableHolder): number {
    let slot = this.#holders.indexOf(holder);
    if (slot >= 0) return slot;
    slot = this.#holders.indexOf(null);
    if (slot < 0) slot = this.#holders.length;
    this.#holders[slot] = holder;
    this.#holderAreas[slot] = 0;
    return slot;
  }
}
