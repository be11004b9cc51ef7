/**
 * Page tables that are filled together: runs of frames are mapped in all of them or in none, and unmapped from all.
 *
 * Page tables are unmapped in whole runs, as `map` was given them: a batch only ends between two.
 */
import { MMIO, type PageTable, type Protection } from "../pagetable/page_table.ts";
import { type Errno, OK } from "./errno.ts";
import { DEVICE_RUN, type FrameBatch } from "./memory_source.ts";

/** Page tables that are filled together. */
export interface FillTargets {
  /** The page tables. */
  readonly tables: readonly PageTable[];
  /** Whether they are filled one smallest leaf at a time, so that they contain no large leaves. */
  readonly isPageByPage: boolean;
}

/** Maps a batch from page `begin` on in all page tables. All or nothing; flushes what it undid. */
export function mapBatch(
  targets: FillTargets,
  batch: FrameBatch,
  begin: number,
  protection: Protection,
): Errno {
  const bits = batch.kind === DEVICE_RUN ? protection | MMIO : protection;
  let page = begin;
  for (let run = 0; run < batch.runs; run++) {
    const last = page + batch.length[run] - 1;
    const errno = mapRun(targets, page, last, batch.frame[run], bits);
    if (errno !== OK) {
      if (page > begin) unmapAll(targets.tables, begin, page - 1);
      return errno;
    }
    page = last + 1;
  }
  return OK;
}

/** Maps one run in all page tables. All or nothing; flushes what it undid. */
export function mapRun(
  { tables, isPageByPage }: FillTargets,
  first: number,
  last: number,
  frame: number,
  protection: Protection,
): Errno {
  for (let at = 0; at < tables.length; at++) {
    const errno = isPageByPage
      ? mapInLeaves(tables[at], first, last, frame, protection)
      : tables[at].map(first, last, frame, protection);
    if (errno === OK) continue;
    for (let done = 0; done < at; done++) tables[done].unmap(first, last);
    // Also the one that refused: it may have added table pages and removed them again.
    for (let done = 0; done <= at; done++) tables[done].flush();
    return errno;
  }
  return OK;
}

/** Unmaps a range from all of `tables` and flushes them. Its pages may be let go only after that. */
export function unmapAll(tables: readonly PageTable[], first: number, last: number): void {
  for (let at = 0; at < tables.length; at++) tables[at].unmap(first, last);
  for (let at = 0; at < tables.length; at++) tables[at].flush();
}

/** Maps one run one smallest leaf at a time. All or nothing. */
function mapInLeaves(
  table: PageTable,
  first: number,
  last: number,
  frame: number,
  protection: Protection,
): Errno {
  const step = 2 ** table.leafOrders[0];
  for (let page = first; page <= last; page += step) {
    const end = Math.min(last, page + step - 1);
    const errno = table.map(page, end, frame + (page - first), protection);
    if (errno !== OK) {
      if (page > first) table.unmap(first, page - 1);
      return errno;
    }
  }
  return OK;
}
