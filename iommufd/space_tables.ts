/**
 * The page tables of an address space: attaching and detaching them, and what they require of ranges.
 *
 * @module
 */
import type { PageTable } from "../pagetable/page_table.ts";
import { Attachments } from "./attachments.ts";
import { EADDRINUSE, EBUSY, EEXIST, EINVAL, ENOENT, type Errno, OK } from "./errno.ts";
import { FillSteps } from "./fill_steps.ts";
import { TOP_PAGE } from "./page_range.ts";
import { SpaceRanges } from "./space_ranges.ts";

/** The page tables that are attached to some address space. */
const attached = new WeakSet<PageTable>();

/** The page tables of one I/O address space, the base of {@linkcode ./io_address_space.ts}. */
export abstract class SpaceTables extends SpaceRanges {
  /** Pages that every range has to start and end at a multiple of: the largest smallest leaf of the page tables. */
  alignment = 1;

  /** @internal The page tables, and what fills them. */
  protected readonly attachments: Attachments = new Attachments(this.areaSet);
  /** @internal What is being filled in steps. */
  protected filling: FillSteps | null = null;
  /** @internal The page table that is attached by that, if it is not a mapping that is filled. */
  protected joining: PageTable | null = null;

  /** The page tables attached. */
  get tables(): readonly PageTable[] {
    return this.attachments.tables;
  }

  /**
   * Whether page tables are being filled in steps. Until that is over, every operation that would change mappings or page
   * tables is refused with EBUSY; accesses go on.
   */
  get isFilling(): boolean {
    return this.filling !== null;
  }

  /** Ends filling where it is: only for a caller that removes the mappings and page tables next. */
  abandonFill(): void {
    this.filling = null;
    this.joining = null;
  }

  /**
   * Attaches a page table: maps every area in it. The pages it cannot translate are reserved as long as it stays.
   *
   * @returns OK; EEXIST if it is attached already; EBUSY if it is attached elsewhere, or from within another operation;
   * EADDRINUSE if a mapping or an allowed range lies outside of what it can translate or is misaligned for it; otherwise
   * what filling it says, and it is left empty then.
   */
  addPageTable(table: PageTable): Errno {
    return this.#addPageTable(table, false);
  }

  /**
   * As {@linkcode addPageTable}, but a further page table is filled in steps: if {@linkcode isFilling} afterwards, it is
   * attached and {@linkcode fillStep} has yet to fill it. What is no matter of filling is refused now.
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
   * Detaches a page table and leaves it empty. When others remain nothing is unpinned: frames are read back from the
   * first of those from now on. When it was the last, pages that no access holds are let go.
   *
   * @returns OK; ENOENT if it is not attached; EBUSY from within another operation.
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
   * As {@linkcode removePageTable}, of a page table that nothing uses any more: it is left full, which takes no time.
   *
   * @returns also EINVAL for the only page table, from which pages would have to be let go.
   */
  releasePageTable(table: PageTable): Errno {
    if (this.isRunning || this.filling !== null) return EBUSY;
    if (!this.tables.includes(table)) return ENOENT;
    if (this.tables.length === 1) return EINVAL;
    this.attachments.release(table);
    this.#forget(table);
    return OK;
  }

  /** A page table is not attached any more. */
  #forget(table: PageTable): void {
    attached.delete(table);
    this.unreserve(table);
    this.alignment = this.attachments.granule;
  }

  /**
   * Lets page tables use large leaves, as they do unless told otherwise, or gives them one smallest leaf at a time.
   *
   * @returns OK; EINVAL for taking large leaves away once there are both mappings and page tables.
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
