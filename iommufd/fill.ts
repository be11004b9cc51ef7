/**
 * Filling page tables from a page list with storage tiers, and unfilling them: the seed's `iopt_area_fill_domain`,
 * `iopt_area_fill_domains`, `iopt_area_unfill_domain`, `iopt_area_unfill_domains`.
 *
 * Two orders hold throughout. A frame loses its last pin only after it is mapped nowhere any more. And page tables are
 * unmapped in whole runs: reading back finds the runs that `map` was given, and a batch only ends between two of them.
 *
 * @module
 */
import { MMIO, type PageTable } from "../pagetable/page_table.ts";
import { type Errno, OK } from "./errno.ts";
import type { FrameBatch } from "./frame_batch.ts";
import { mapRun } from "./leased_pages.ts";
import { DEVICE, RAM } from "./memory_source.ts";
import type { AreaSlice, TableHolder } from "./page_list.ts";
import type { PinnedPages } from "./pinned_pages.ts";
import { NOWHERE } from "./spans.ts";

/**
 * Reads the frames of an area once and maps them in all page tables of its address space. The area is not in the area
 * tree yet; on error the page tables and pins are as they were.
 */
export function fillPageTables(list: PinnedPages, holder: TableHolder, area: AreaSlice): Errno {
  const { reader } = list;
  const tables = holder.tables;
  const lastIndex = area.index + (area.last - area.first);
  let errno = reader.start(area.index, lastIndex);
  while (errno === OK && !reader.isDone) {
    for (let at = 0; at < tables.length; at++) {
      errno = batchToTable(reader.batch, reader.first, tables[at], holder, area);
      if (errno === OK) continue;
      undoBatch(list, holder, at, area);
      break;
    }
    if (errno === OK) errno = reader.advance();
  }
  const reached = reader.first;
  reader.finish();
  if (errno !== OK && reached > area.index) undoFill(list, holder, area, reached - 1);
  return errno;
}

/** Maps an area whose frames are kept already in one more page table. */
export function fillPageTable(
  list: PinnedPages,
  holder: TableHolder,
  table: PageTable,
  area: AreaSlice,
): Errno {
  const { reader } = list;
  let errno = reader.start(area.index, area.index + (area.last - area.first));
  while (errno === OK && !reader.isDone) {
    errno = batchToTable(reader.batch, reader.first, table, holder, area);
    if (errno === OK) errno = reader.advance();
  }
  if (errno !== OK && reader.first > area.index) {
    table.unmap(area.first, area.first + (reader.first - area.index) - 1);
  }
  reader.finish();
  return errno;
}

/**
 * Unmaps an area from all page tables and unpins what nobody else holds. The caller has taken the area out of the area
 * tree. Cannot fail.
 */
export function unfillPageTables(list: PinnedPages, holder: TableHolder, area: AreaSlice): void {
  const { tables } = holder;
  for (let at = 1; at < tables.length; at++) tables[at].unmap(area.first, area.last);
  unfillStorage(list, holder, area, area.index + (area.last - area.first));
}

/** Unmaps the area up to `lastIndex` from the page table that keeps its frames, and unpins what nobody else holds. */
function unfillStorage(
  list: PinnedPages,
  holder: TableHolder,
  area: AreaSlice,
  lastIndex: number,
): void {
  const table = holder.tables[0];
  const offset = area.first - area.index;
  if (
    list.areaTree.obviouslyCovers(area.index, lastIndex) ||
    list.accessTree.obviouslyCovers(area.index, lastIndex)
  ) {
    table.unmap(area.first, lastIndex + offset);
    holder.onUnmapped?.();
    return;
  }
  const batch = list.dropBatch;
  let index = area.index;
  while (index <= lastIndex) {
    batch.clear();
    const first = index;
    index = gatherMapped(list, table, offset, index, lastIndex, batch);
    table.unmap(first + offset, index - 1 + offset);
    holder.onUnmapped?.();
    unpinUnheld(list, batch, first);
  }
}

/** Reads back runs as they were mapped, as many as the batch takes. Returns the index after them. */
function gatherMapped(
  list: PinnedPages,
  table: PageTable,
  offset: number,
  index: number,
  lastIndex: number,
  batch: FrameBatch,
): number {
  const { source } = list;
  while (index <= lastIndex) {
    source.findRun(index, lastIndex);
    const last = source.runLast;
    if (source.runKind === DEVICE) {
      if (!batch.append(source.runFrame, last - index + 1, DEVICE)) return index;
      index = last + 1;
      continue;
    }
    for (; index <= last; index++) {
      if (!batch.append(table.frameAt(index + offset), 1, RAM)) return index;
    }
  }
  return index;
}

/** Unpins those frames of a batch that neither an access nor an area holds. */
export function unpinUnheld(list: PinnedPages, batch: FrameBatch, firstIndex: number): void {
  if (batch.kind === DEVICE) return;
  const { spans } = list;
  const lastIndex = firstIndex + batch.pages - 1;
  for (let index = firstIndex; index <= lastIndex; index = spans.last + 1) {
    spans.find(index, lastIndex);
    if (spans.tier === NOWHERE) unpin(list, batch, index - firstIndex, spans.last - firstIndex);
  }
}

/** Unpins frames `[first, last]` of a batch. */
function unpin(list: PinnedPages, batch: FrameBatch, first: number, last: number): void {
  let start = 0;
  for (let run = 0; run < batch.runs && start <= last; run++) {
    const from = Math.max(first, start);
    const to = Math.min(last, start + batch.length[run] - 1);
    if (from <= to) {
      list.source.unpin(batch.frame[run] + (from - start), to - from + 1);
      list.pinned -= to - from + 1;
    }
    start += batch.length[run];
  }
}

/** Maps the runs of a batch in one page table. All or nothing. */
function batchToTable(
  batch: FrameBatch,
  index: number,
  table: PageTable,
  holder: TableHolder,
  area: AreaSlice,
): Errno {
  const begin = area.first + (index - area.index);
  const protection = batch.kind === DEVICE ? area.protection | MMIO : area.protection;
  let page = begin;
  for (let run = 0; run < batch.runs; run++) {
    const last = page + batch.length[run] - 1;
    const frame = batch.frame[run];
    const errno = mapRun(table, page, last, frame, protection, holder.isPageByPage);
    if (errno !== OK) {
      if (page > begin) table.unmap(begin, page - 1);
      return errno;
    }
    page = last + 1;
  }
  return OK;
}

/** After table `failed` refused the reader's batch: takes it out of the tables before, then unpins it. */
function undoBatch(
  list: PinnedPages,
  holder: TableHolder,
  failed: number,
  area: AreaSlice,
): void {
  const { reader } = list;
  const first = area.first + (reader.first - area.index);
  const last = first + reader.batch.pages - 1;
  for (let at = 0; at < failed; at++) holder.tables[at].unmap(first, last);
  holder.onUnmapped?.();
  unpinUnheld(list, reader.batch, reader.first);
}

/** Takes back whole batches up to `lastIndex` that all tables hold. */
function undoFill(
  list: PinnedPages,
  holder: TableHolder,
  area: AreaSlice,
  lastIndex: number,
): void {
  const { tables } = holder;
  const last = area.first + (lastIndex - area.index);
  for (let at = 1; at < tables.length; at++) tables[at].unmap(area.first, last);
  unfillStorage(list, holder, area, lastIndex);
}
