/**
 * Writes lines to a file, pipe or terminal that another process may leave full, stop, or close: standard error.
 *
 * A write may block (a pipe whose reader is stuck, a stopped terminal, a network file system) or fail (a full disk, a
 * closed terminal, a nonblocking pipe that is full), and that must not delay what is served. So writes are made on a
 * thread of the runtime's pool, one at a time. Lines wait meanwhile, up to a bound; beyond it they are dropped, and
 * the next line that is written says how many. A write that fails is repeated until it succeeds, as the disk may have
 * room again.
 */
import { libc } from "./libc.ts";

/** Most characters that wait for a write. */
const MOST_WAITING = 256 * 1024;
/** Milliseconds between a write that failed and the next attempt. */
const RETRY_MS = 200;

/** Writes lines to a descriptor, which stays the caller's. */
export class LineWriter {
  readonly #number: number;
  readonly #encoder = new TextEncoder();
  #lines: string[] = [];
  /** Characters of the lines that wait. */
  #waiting = 0;
  #dropped = 0;
  #droppedAltogether = 0;
  #writing: Promise<void> | undefined;
  #closed = false;

  /** A writer to a descriptor. */
  constructor(number: number) {
    this.#number = number;
  }

  /** Lines that were dropped since the beginning. */
  get dropped(): number {
    return this.#droppedAltogether;
  }

  /** Takes a line, without its newline; returns at once. */
  write(line: string): void {
    if (this.#closed) return;
    if (this.#waiting + line.length >= MOST_WAITING) {
      this.#dropped++;
      this.#droppedAltogether++;
      return;
    }
    this.#lines.push(line);
    this.#waiting += line.length + 1;
    this.#writing ??= this.#writeAll();
  }

  /**
   * Waits until the lines so far are written, or until a time limit in milliseconds.
   *
   * @returns whether all of them were.
   */
  async flush(milliseconds: number): Promise<boolean> {
    if (this.#writing === undefined) return true;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const timeout = new Promise<boolean>((resolve) => {
      timer = setTimeout(() => resolve(false), milliseconds);
    });
    const done = await Promise.race([this.#writing.then(() => true), timeout]);
    clearTimeout(timer);
    return done;
  }

  /** Drops what is not written yet, and takes no more lines. */
  close(): void {
    this.#closed = true;
  }

  async #writeAll(): Promise<void> {
    while (this.#lines.length > 0 && !this.#closed) {
      if (this.#dropped > 0) {
        const count = this.#dropped;
        this.#lines.push(
          `viommu: warn: ${count} log lines were dropped: nothing took them in time`,
        );
        this.#dropped = 0;
      }
      const text = `${this.#lines.join("\n")}\n`;
      this.#lines = [];
      this.#waiting = 0;
      await this.#writeBytes(this.#encoder.encode(text));
    }
    this.#writing = undefined;
  }

  async #writeBytes(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    let left = bytes;
    while (left.length > 0 && !this.#closed) {
      const count = await libc().writeOnThread(this.#number, left, BigInt(left.length));
      if (count > 0) left = left.slice(count);
      // Its errno stays on its thread; whatever it was, the same write may succeed a moment later.
      else await new Promise<void>((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}
