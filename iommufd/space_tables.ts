/** The page tables of an address space: attaching and detaching them, and what they require of ranges. */
import type { PageTable } from "../pagetable/page_table.ts";
import { Attachments } from "./attachments.ts";
import { EADDRINUSE, EBUSY, EEXIST, EINVAL, ENOENT, type Errno, OK } from "./errno.ts";
import { FillSteps } from "./fill_steps.ts";
import { TOP_PAGE } from "./page_range.ts";
import { SpaceRanges } from "./space_ranges.ts";

/** The page tables that are attached to some address space. */
const attached = new WeakSet<PageTable>();

/** The page tables of one I/O address space, a base of {@linkcode IoAddressSpace}. */
export abstract class SpaceTables extends SpaceRanges {
  /** The alignment of every range, in pages: the largest of the smallest leaves of the page tables. */
  alignment = 1;

  /** @internal The page tables, and their filling and emptying. */
  protected readonly attachments: Attachments = new Attachments(this.areaSet);
  /** @internal The filling in steps that is under way. */
  protected filling: FillSteps | null = null;
  /** @internal The page table that is being attached by it; null if a mapping is being filled. */
  protected joining: PageTable | null = null;

  /** The page tables attached. */
  get tables(): readonly PageTable[] {
    return this.attachments.tables;
  }

  /**
   * Whether page tables are being filled in steps. Meanwhile every operation that would change mappings or page tables is
   * refused with EBUSY; accesses are not.
   */
  get isFilling(): boolean {
    return this.filling !== null;
  }

  /** Stops filling: only for a caller that removes the mappings and page tables next. */
  abandonFill(): void {
    this.filling = null;
    this.joining = null;
  }

  /**
   * Attaches a page table and maps every area in it. The pages that it cannot translate are reserved while it is attached.
   *
   * @returns OK; EEXIST if it is attached already; EBUSY if it is attached to another space, or while an operation runs;
   * EADDRINUSE if a mapping or an allowed range lies outside of what it can translate or is misaligned for it; otherwise the
   * error of filling it, and it is left empty.
   */
  addPageTable(table: PageTable): Errno {
    return this.#addPageTable(table, false);
  }

  /**
   * As {@linkcode addPageTable}, but a further page table is filled in steps: if {@linkcode isFilling} afterwards, it is
   * attached, and `fillStep` has to be called until it is full. Only an error of filling it can follow later.
   */
  beginAddPageTable(table: PageTable): Errno {
    const isInSteps = this.tables.length > 0 && this.areaSet.unstable === 0 && this.hasLargePages;
    return this.#addPageTable(table, isInSteps);
  }

  #addPageTable(table: PageTable, isInSteps: boolean): Errno {
    if (this.isRunning || this.filling !== null) return EBUSY;
    if (attached.has(table)) return this.tables.includes(table) ? EEXIST : EBUSY;
    const granule = 2 ** table.leafOrders[0];
    if (granule > this.alignment && !this.areaSet.isAligned(granule)) return EADDRINUSE;
    if (!this.areaSet.lockAll(this)) return EBUSY;
    let errno = this.reserved.reserveAround(table);
    if (errno === OK && isInSteps) {
      this.attachments.tables.push(table);
      this.joining = table;
      this.filling = new FillSteps(this.areaSet, [table], 0, TOP_PAGE);
    } else if (errno === OK) {
      this.isRunning = true;
      errno = this.attachments.attach(table);
      this.isRunning = false;
      if (errno !== OK) this.unreserve(table);
    }
    this.areaSet.unlock();
    if (errno !== OK) return errno;
    attached.add(table);
    this.alignment = this.attachments.granule;
    return OK;
  }

  /**
   * Detaches a page table and leaves it empty. If it was the last one, pages that no access holds are let go; otherwise
   * nothing is unpinned, and frames are read back from another page table.
   *
   * @returns OK; ENOENT if it is not attached; EBUSY while an operation runs.
   */
  removePageTable(table: PageTable): Errno {
    if (this.isRunning || this.filling !== null) return EBUSY;
    if (!this.tables.includes(table)) return ENOENT;
    if (!this.areaSet.lockAll(this)) return EBUSY;
    this.isRunning = true;
    this.attachments.detach(table);
    this.isRunning = false;
    this.areaSet.unlock();
    this.#forget(table);
    return OK;
  }

  /**
   * As {@linkcode removePageTable}, for a page table that nothing uses any more: it is not emptied, which takes no time.
   *
   * @returns also EINVAL for the only page table, whose pages would have to be let go.
   */
  releasePageTable(table: PageTable): Errno {
    if (this.isRunning || this.filling !== null) return EBUSY;
    if (!this.tables.includes(table)) return ENOENT;
    if (this.tables.length === 1) return EINVAL;
    this.attachments.release(table);
    this.#forget(table);
    return OK;
  }

  /** A page table was detached. */
  #forget(table: PageTable): void {
    attached.delete(table);
    this.unreserve(table);
    this.alignment = this.attachments.granule;
  }

  /**
   * Allows page tables to use large leaves, as they do by default, or not.
   *
   * @returns OK; EBUSY while an operation runs; EINVAL for forbidding it when there are both mappings and page tables.
   */
  setLargePages(isOn: boolean): Errno {
    if (this.isRunning || this.filling !== null) return EBUSY;
    if (!isOn && this.tables.length > 0 && this.areas.count > 0) return EINVAL;
    this.attachments.isPageByPage = !isOn;
    return OK;
  }

  /** Whether page tables may use large leaves. */
  get hasLargePages(): boolean {
    return !this.attachments.isPageByPage;
  }
}
