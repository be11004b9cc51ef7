/**
 * A batch of frames in runs: what the reader gathers and page tables are filled from.
 *
 * Appending extends the last run when the frames go on where it ends, so a batch holds the largest contiguous runs there
 * are, whichever tiers the frames came from. All frames of a batch are of one kind, since they are mapped with one
 * protection. The number of runs is bounded; appending to a full batch fails and drops nothing.
 *
 * @module
 */
import { RAM } from "./memory_source.ts";

/** A bounded list of runs. */
export class FrameBatch {
  /** First frame of each run. */
  readonly frame: Float64Array;
  /** Frames in each run. */
  readonly length: Float64Array;
  /** Runs it can hold. */
  readonly slots: number;
  /** Runs it holds. */
  runs = 0;
  /** Frames it holds. */
  pages = 0;
  /** What the frames are, RAM or DEVICE. */
  kind: number = RAM;
  /** The run that {@linkcode take} takes from next, and how much of it is gone already. */
  #run = 0;
  #offset = 0;

  /** Makes an empty batch for `slots` runs. */
  constructor(slots: number) {
    this.slots = slots;
    this.frame = new Float64Array(slots);
    this.length = new Float64Array(slots);
  }

  /** Empties it. */
  clear(): void {
    this.runs = 0;
    this.pages = 0;
    this.kind = RAM;
    this.#run = 0;
    this.#offset = 0;
  }

  /** The first frame not taken yet. */
  get nextFrame(): number {
    return this.frame[this.#run] + this.#offset;
  }

  /** How many frames follow each other from there on; 0 once all are taken. */
  get nextCount(): number {
    return this.#run < this.runs ? this.length[this.#run] - this.#offset : 0;
  }

  /**
   * Takes frames out in order, {@linkcode nextCount} at most. What was taken counts in {@linkcode pages} all the same.
   * Throws RangeError if there are not so many, which is a bug of the caller.
   */
  take(count: number): void {
    if (!(count > 0 && count <= this.nextCount)) {
      throw new RangeError(`Cannot take ${count} frames: ${this.nextCount} are next`);
    }
    this.#offset += count;
    if (this.#offset < this.length[this.#run]) return;
    this.#run++;
    this.#offset = 0;
  }

  /** Appends `count` frames from `frame` on. Returns false, and appends none, if they do not fit. */
  append(frame: number, count: number, kind: number): boolean {
    const run = this.runs - 1;
    if (run < 0) this.kind = kind;
    else {
      if (kind !== this.kind) return false;
      if (this.frame[run] + this.length[run] === frame) {
        this.length[run] += count;
        this.pages += count;
        return true;
      }
    }
    if (this.runs === this.slots) return false;
    this.frame[this.runs] = frame;
    this.length[this.runs] = count;
    this.runs++;
    this.pages += count;
    return true;
  }
}
