/**
 * The store: the ranges that accesses hold, and their frames. It combines the kernel's `iopt_pages_user` tree and its
 * `pinned_pfns` xarray.
 *
 * Every access keeps the frames of its own range, in runs of 16 bytes; a range that is one run, as most are in guest memory,
 * needs no memory besides its node. Adding an access may need memory, removing one never does, so removing a page table
 * cannot fail while accesses hold its pages.
 *
 * Indexes are pages of a list, ranges inclusive.
 */
import type { FrameBatch } from "./memory_source.ts";
import { fits, type Growth, longerFloat64 } from "./growth.ts";
import { IntervalTree } from "./interval_tree.ts";

/** The value of a node whose range has several runs. */
const SEVERAL = -1;
/** Initial capacity of the buffer, in runs. */
const FEW_RUNS = 16;
/** Length from which on the buffer is not kept. */
const LARGE = 4096;

/** The accesses of one page list. */
export class AccessStore {
  /** Last index of the run that {@linkcode runAt} found. */
  runLast: number = -1;
  /** The ranges; the tag is how often each was added, the value the first frame or {@linkcode SEVERAL}. */
  readonly tree: IntervalTree;
  /** Runs of the nodes that have several: offset and frame of each. */
  readonly #runs = new Map<number, Float64Array>();
  /** Runs gathered for the next access. */
  #buffer = new Float64Array(0);
  #gathered = 0;
  #pages = 0;
  readonly #growth: Growth;

  /** Makes an empty store. */
  constructor(growth: Growth) {
    this.#growth = growth;
    this.tree = new IntervalTree(growth);
  }

  /** Ranges that accesses hold, equal ones counted once. */
  get count(): number {
    return this.tree.count;
  }

  /** Bytes held for frames. */
  get bytes(): number {
    let bytes = 0;
    for (const runs of this.#runs.values()) bytes += runs.byteLength;
    return bytes;
  }

  /** Starts gathering the frames of a new access. Returns false if there is no memory. */
  begin(): boolean {
    this.#gathered = 0;
    this.#pages = 0;
    return this.tree.makeRoom();
  }

  /** Gathers the frames that follow. Returns false if there is no memory, and what was gathered before stays. */
  gather(batch: FrameBatch): boolean {
    for (let run = 0; run < batch.runs; run++) {
      if (!this.gatherRun(batch.frame[run], batch.length[run])) return false;
    }
    return true;
  }

  /** As {@linkcode gather}, for one run. */
  gatherRun(frame: number, count: number): boolean {
    const at = 2 * this.#gathered;
    const buffer = this.#buffer;
    if (at === 0 || buffer[at - 1] + (this.#pages - buffer[at - 2]) !== frame) {
      if (at === buffer.length && !this.#growBuffer()) return false;
      this.#buffer[at] = this.#pages;
      this.#buffer[at + 1] = frame;
      this.#gathered++;
    }
    this.#pages += count;
    return true;
  }

  /** Adds the access `[first, last]`, whose frames were gathered. Returns its node, or 0 if there is no memory. */
  add(first: number, last: number): number {
    const used = 2 * this.#gathered;
    if (used === 2) return this.tree.insert(first, last, 1, this.#buffer[1]);
    let runs: Float64Array | undefined;
    const { length } = this.#buffer;
    if (!fits(this.#growth, used * 8, () => runs = this.#buffer.slice(0, used))) return 0;
    if (length > LARGE) this.#buffer = new Float64Array(0);
    const node = this.tree.insert(first, last, 1, SEVERAL);
    this.#runs.set(node, runs!);
    return node;
  }

  /** The access of exactly this range, or 0. */
  find(first: number, last: number): number {
    return this.tree.findExact(first, last);
  }

  /** Removes an access. Needs no memory. */
  remove(node: number): void {
    if (this.tree.value[node] === SEVERAL) this.#runs.delete(node);
    this.tree.remove(node);
  }

  /** Writes the frames of an access in order. */
  read(node: number, frames: Float64Array): void {
    const { first, last } = this.tree;
    const count = last[node] - first[node] + 1;
    for (let position = 0; position < count;) {
      const frame = this.frameAt(node, position, count - 1);
      for (let at = position; at <= this.runLast; at++) frames[at] = frame + (at - position);
      position = this.runLast + 1;
    }
  }

  /** The frame of an index that an access holds, or -1. The end of its run is left in {@linkcode runLast}. */
  runAt(index: number, last: number): number {
    const { tree } = this;
    const node = tree.firstIn(index, index);
    if (node === 0) return -1;
    const first = tree.first[node];
    const frame = this.frameAt(node, index - first, Math.min(last, tree.last[node]) - first);
    this.runLast += first;
    return frame;
  }

  /**
   * The frame at a position of an access; the end of its run, `last` at most, is left in {@linkcode runLast} as a position.
   * Node 0 stands for the frames gathered last.
   */
  frameAt(node: number, position: number, last: number): number {
    if (node === 0) return this.#lookUp(this.#buffer, this.#gathered, position, last);
    const frame = this.tree.value[node];
    if (frame === SEVERAL) {
      const runs = this.#runs.get(node)!;
      return this.#lookUp(runs, runs.length / 2, position, last);
    }
    this.runLast = last;
    return frame + position;
  }

  #lookUp(runs: Float64Array, count: number, position: number, last: number): number {
    let low = 0;
    let high = count - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (runs[2 * middle] <= position) low = middle;
      else high = middle - 1;
    }
    this.runLast = low + 1 < count ? Math.min(last, runs[2 * low + 2] - 1) : last;
    return runs[2 * low + 1] + (position - runs[2 * low]);
  }

  #growBuffer(): boolean {
    const length = 2 * Math.max(this.#buffer.length, FEW_RUNS);
    return fits(this.#growth, (length - this.#buffer.length) * 8, () => {
      this.#buffer = longerFloat64(this.#buffer, length);
    });
  }
}
