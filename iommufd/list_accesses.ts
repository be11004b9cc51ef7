/**
 * The accesses of a page list: pages that are pinned into the store, and bytes that are read and written.
 *
 * The page list is locked while they run (`page_list.ts`). Indexes are pages of the list, ranges inclusive.
 */
import { PAGE_SIZE } from "../pagetable/page_table.ts";
import { EINVAL, ENOENT, ENOMEM, type Errno, OK } from "./errno.ts";
import type { FrameReader, FrameTiers } from "./frame_reader.ts";
import { DEVICE_RUN } from "./memory_source.ts";

/** A page list as its accesses see it. */
export interface AccessedList extends FrameTiers {
  /** Gathers the frames of pages that are to be stored. */
  readonly reader: FrameReader;
}

/** The accesses of one page list. */
export class ListAccesses {
  /** Bytes that the last {@linkcode moveBytes} moved, also when it failed on the way. */
  movedBytes = 0;
  readonly #list: AccessedList;

  /** Starts without accesses. */
  constructor(list: AccessedList) {
    this.#list = list;
  }

  /**
   * Adds an access, which keeps `[firstIndex, lastIndex]` pinned.
   *
   * @param frames receives the frames in order, unless null.
   * @returns OK; EINVAL over device memory; EFAULT; ENOMEM. Nothing changes on error.
   */
  add(firstIndex: number, lastIndex: number, frames: Float64Array | null): Errno {
    const { store } = this.#list;
    let node = store.find(firstIndex, lastIndex);
    if (node !== 0) store.tree.tag[node]++;
    else {
      const errno = this.#fillStore(firstIndex, lastIndex);
      if (errno !== OK) return errno;
      node = store.find(firstIndex, lastIndex);
    }
    if (frames !== null) store.read(node, frames);
    return OK;
  }

  /** Removes an access. ENOENT if there is none of exactly this range. */
  remove(firstIndex: number, lastIndex: number): Errno {
    const { held, store } = this.#list;
    const node = store.find(firstIndex, lastIndex);
    if (node === 0) return ENOENT;
    if (--store.tree.tag[node] > 0) return OK;
    held.letGo(firstIndex, lastIndex);
    this.#unpinStored(node, firstIndex, lastIndex);
    store.remove(node);
    return OK;
  }

  /**
   * Copies bytes from or to pages `[index, lastIndex]`, starting at byte `offset` of the first, until the pages or the
   * bytes end; their number is left in {@linkcode movedBytes}.
   *
   * @returns OK; EINVAL over device memory; EFAULT where there is no memory.
   */
  moveBytes(
    index: number,
    lastIndex: number,
    offset: number,
    bytes: Uint8Array,
    isWrite: boolean,
  ): Errno {
    const { held, tier } = this.#list;
    this.movedBytes = 0;
    let errno: Errno = OK;
    while (errno === OK && this.movedBytes < bytes.length && index <= lastIndex) {
      // Frames of an unstable source are looked up page by page.
      held.find(index, tier === null ? lastIndex : index);
      const last = held.runLast;
      const done = this.movedBytes;
      const end = Math.min(bytes.length, done + (last - index + 1) * PAGE_SIZE - offset);
      const part = bytes.subarray(done, end);
      errno = held.runKind === DEVICE_RUN ? EINVAL : this.#moveRun(index, offset, part, isWrite);
      if (errno === OK) this.movedBytes = end;
      index = last + 1;
      offset = 0;
    }
    return errno;
  }

  /** Pins a range that the store does not hold as a whole, and adds it to the store. All or nothing. */
  #fillStore(firstIndex: number, lastIndex: number): Errno {
    if (this.#hasDevice(firstIndex, lastIndex)) return EINVAL;
    const list = this.#list;
    const { held, store } = list;
    if (!store.begin() || !held.hold(firstIndex, lastIndex)) return ENOMEM;
    let errno: Errno = OK;
    let gathered = firstIndex;
    const isOneRun = held.isOneRun(firstIndex, lastIndex);
    if (isOneRun) {
      if (!store.gatherRun(held.runFrame, lastIndex - firstIndex + 1)) errno = ENOMEM;
    } else {
      const { reader } = list;
      errno = reader.start(firstIndex, lastIndex);
      while (errno === OK && !reader.isDone) {
        errno = store.gather(reader.batch) ? reader.advance() : ENOMEM;
      }
      gathered = reader.first;
    }
    if (errno === OK && store.add(firstIndex, lastIndex) === 0) errno = ENOMEM;
    if (errno === OK) return OK;
    held.letGo(firstIndex, lastIndex);
    this.#unpinStored(0, firstIndex, gathered - 1);
    if (!isOneRun) list.reader.finish();
    return errno;
  }

  /**
   * Unpins those pages of an access that nothing holds any more; node 0 stands for an access whose frames were gathered
   * but which was not added.
   */
  #unpinStored(node: number, firstIndex: number, lastIndex: number): void {
    const { held, source, store } = this.#list;
    if (source.isStable) return;
    let index = firstIndex;
    while (index <= lastIndex) {
      const isUnheld = held.isUnheld(index, lastIndex);
      const end = held.runLast;
      while (index <= end) {
        const frame = store.frameAt(node, index - firstIndex, end - firstIndex);
        const next = firstIndex + store.runLast + 1;
        if (isUnheld) source.unpin(frame, next - index);
        index = next;
      }
    }
  }

  #hasDevice(firstIndex: number, lastIndex: number): boolean {
    const { held } = this.#list;
    for (let index = firstIndex; index <= lastIndex; index = held.runLast + 1) {
      held.find(index, lastIndex);
      if (held.runKind === DEVICE_RUN) return true;
    }
    return false;
  }

  /** Copies bytes of the run found last, through the frame if it is kept, which works even if the source is gone. */
  #moveRun(index: number, offset: number, bytes: Uint8Array, isWrite: boolean): Errno {
    const { held, source, store, tier } = this.#list;
    if (!source.isStable) {
      let frame = store.runAt(index, index);
      if (frame < 0) frame = tier!.runAt(index, index);
      const memory = frame < 0 ? null : source.frameBytes(frame);
      if (memory !== null) {
        if (isWrite) memory.set(bytes, offset);
        else bytes.set(memory.subarray(offset, offset + bytes.length));
        return OK;
      }
    }
    return source.moveBytes(held.runRegion, index, offset, bytes, isWrite);
  }
}
