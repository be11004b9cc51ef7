/**
 * Moving frames into and out of the store of a page list: the seed's `iopt_pages_fill_xarray`, `unfill_xarray`,
 * `clean_xarray` and `fill_from_xarray`.
 *
 * Frames are put out by position, `frames[position + (index - first)]`, never by a running cursor, and only if asked for.
 *
 * @module
 */
import { ENOMEM, type Errno, OK } from "./errno.ts";
import { unpinUnheld } from "./fill.ts";
import type { FrameBatch } from "./frame_batch.ts";
import { RAM } from "./memory_source.ts";
import type { PinnedPages } from "./pinned_pages.ts";

/**
 * Makes the store hold all of `[first, last]`, copying from page tables and pinning what is nowhere. The access that
 * wants it is not in the tree yet. On error the store and the pins are as they were.
 */
export function fillStore(
  list: PinnedPages,
  first: number,
  last: number,
  frames: Float64Array | null,
): Errno {
  const { accessTree } = list;
  let index = first;
  while (index <= last) {
    accessTree.findSpan(index, last);
    const spanLast = accessTree.spanLast;
    if (accessTree.spanIsUsed) {
      if (frames !== null) fillFromStore(list, index, spanLast, frames, index - first);
    } else {
      const errno = fillHole(list, index, spanLast, frames, index - first);
      if (errno !== OK) {
        if (index > first) unfillStore(list, first, index - 1);
        return errno;
      }
    }
    index = spanLast + 1;
  }
  return OK;
}

/** Reads the frames of a range that the store is known to hold. */
export function fillFromStore(
  list: PinnedPages,
  first: number,
  last: number,
  frames: Float64Array,
  position: number,
): void {
  for (let index = first; index <= last; index++) {
    frames[position + (index - first)] = list.store.at(index);
  }
}

/**
 * Drops from the store what no access holds any more, and unpins what no area holds either. The access is out of the
 * tree already. Cannot fail.
 */
export function unfillStore(list: PinnedPages, first: number, last: number): void {
  const { accessTree } = list;
  // Quick way out: if one area holds all of it nothing is unpinned.
  const isHeld = list.areaTree.obviouslyCovers(first, last);
  for (let index = first; index <= last;) {
    accessTree.findSpan(index, last);
    const spanLast = accessTree.spanLast;
    if (!accessTree.spanIsUsed) {
      if (!isHeld) unpinStored(list, index, spanLast);
      list.store.clear(index, spanLast);
    }
    index = spanLast + 1;
  }
}

function unpinStored(list: PinnedPages, first: number, last: number): void {
  const batch = list.dropBatch;
  let index = first;
  while (index <= last) {
    const begin = index;
    batch.clear();
    while (index <= last && batch.append(list.store.at(index), 1, RAM)) index++;
    unpinUnheld(list, batch, begin);
  }
}

/** Fills a range that no access holds. */
function fillHole(
  list: PinnedPages,
  first: number,
  last: number,
  frames: Float64Array | null,
  position: number,
): Errno {
  const { reader, store } = list;
  let errno = reader.start(first, last);
  while (errno === OK && !reader.isDone) {
    if (store.put(reader.first, reader.batch)) {
      if (frames !== null) copyFrames(reader.batch, frames, position + (reader.first - first));
      errno = reader.advance();
    } else {
      unpinUnheld(list, reader.batch, reader.first);
      errno = ENOMEM;
    }
  }
  const reached = reader.first;
  reader.finish();
  if (errno !== OK && reached > first) unfillStore(list, first, reached - 1);
  return errno;
}

function copyFrames(batch: FrameBatch, frames: Float64Array, position: number): void {
  for (let run = 0; run < batch.runs; run++) {
    for (let offset = 0; offset < batch.length[run]; offset++) {
      frames[position++] = batch.frame[run] + offset;
    }
  }
}
