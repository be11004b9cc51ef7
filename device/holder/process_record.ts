/**
 * What the holder knows about itself and its workers, in memory that each worker maps, so that the API can tell: who
 * serves, how often a worker has died, and how long the guest had to wait.
 */
import { createMemoryFile, type Descriptor, mapMemoryFile, type ProcessEnd } from "../host/mod.ts";

const RECORD_BYTES = 4096;
/** Pauses of which the median is taken: the last ones. */
const PAUSES_KEPT = 255;
/** Where each number is, in numbers of 64 bits. */
const HOLDER = 0;
const DEATHS = 1;
const LAST_DEATH = 2;
const LAST_SIGNAL = 3;
const LAST_CODE = 4;
const PAUSES = 5;
const MEDIAN = 6;
const LONGEST = 7;
const SPARE = 8;

/** The record, written by the holder and read by workers. */
export class ProcessRecord {
  readonly #numbers: Float64Array<ArrayBuffer>;
  readonly #pauses: number[] = [];

  private constructor(numbers: Float64Array<ArrayBuffer>) {
    this.#numbers = numbers;
  }

  /** A new record, and its file, which is the caller's. */
  static create(): { readonly record: ProcessRecord; readonly file: Descriptor } {
    const file = createMemoryFile("viommu-holder", RECORD_BYTES);
    const record = ProcessRecord.map(file);
    record.#numbers[HOLDER] = Deno.pid;
    return { record, file };
  }

  /** The record in a file. */
  static map(file: Descriptor): ProcessRecord {
    return new ProcessRecord(new Float64Array(mapMemoryFile(file, 0, RECORD_BYTES).buffer));
  }

  /** The number of the holder's process. */
  get holder(): number {
    return this.#numbers[HOLDER];
  }

  /** How many active workers have died. */
  get deaths(): number {
    return this.#numbers[DEATHS];
  }

  /** When the last one did, in milliseconds since 1970; 0 if none has. */
  get lastDeath(): number {
    return this.#numbers[LAST_DEATH];
  }

  /** How the last one ended, as far as it is known. */
  get lastEnd(): ProcessEnd {
    const [signal, code] = [this.#numbers[LAST_SIGNAL], this.#numbers[LAST_CODE]];
    if (signal > 0) return { signal };
    return code >= 0 ? { code } : {};
  }

  /** How many pauses there were: times that no worker served. */
  get pauses(): number {
    return this.#numbers[PAUSES];
  }

  /** The median of the last ones, in milliseconds. */
  get medianPause(): number {
    return this.#numbers[MEDIAN];
  }

  /** The longest of all, in milliseconds. */
  get longestPause(): number {
    return this.#numbers[LONGEST];
  }

  /** Whether a worker is ready to take the place of the active one. */
  get hasSpare(): boolean {
    return this.#numbers[SPARE] === 1;
  }

  set hasSpare(hasSpare: boolean) {
    this.#numbers[SPARE] = hasSpare ? 1 : 0;
  }

  /** An active worker has died. */
  died(): void {
    this.#numbers[DEATHS]++;
    this.#numbers[LAST_DEATH] = Date.now();
    this.ended({});
  }

  /** How the last one that died has ended. */
  ended({ signal = 0, code = -1 }: ProcessEnd): void {
    this.#numbers[LAST_SIGNAL] = signal;
    this.#numbers[LAST_CODE] = code;
  }

  /** No worker has served for so many milliseconds. */
  paused(milliseconds: number): void {
    this.#pauses.push(milliseconds);
    if (this.#pauses.length > PAUSES_KEPT) this.#pauses.shift();
    const sorted = this.#pauses.toSorted((a, b) => a - b);
    this.#numbers[PAUSES]++;
    this.#numbers[MEDIAN] = sorted[sorted.length >> 1];
    this.#numbers[LONGEST] = Math.max(this.#numbers[LONGEST], milliseconds);
  }
}
