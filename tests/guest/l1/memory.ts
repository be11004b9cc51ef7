/**
 * Memory for a device of an L1 guest to reach, and what a device reaches there.
 *
 * @module
 */
import { createMemoryFile, mapMemoryFile } from "../../../device/host/mod.ts";
import type { Edu } from "./edu.ts";

/** Bytes of a page. */
export const PAGE = 4096n;

/** A memory file and its mapping in this process. */
export class TestMemory {
  readonly file: number;
  readonly words: Uint32Array<ArrayBuffer>;

  /** Makes a file of so many pages. */
  constructor(pages: number) {
    const descriptor = createMemoryFile("test-memory", pages * Number(PAGE));
    this.words = new Uint32Array(mapMemoryFile(descriptor, 0, pages * Number(PAGE)).buffer);
    this.file = descriptor.take();
  }

  /** The first word of a page. */
  get(page: number): number {
    return Atomics.load(this.words, page * 1024);
  }

  /** Sets the first word of a page. */
  set(page: number, value: number): void {
    Atomics.store(this.words, page * 1024, value);
  }
}

/** Brings a word into a device's buffer, from a page that it reaches at `iova`. */
async function give(edu: Edu, word: number, memory: TestMemory, page: number, iova: bigint) {
  memory.set(page, word);
  await edu.load(iova);
}

/** A page of memory that a device reaches for certain, for what passes through its buffer. */
export interface Scratch {
  readonly memory: TestMemory;
  readonly page: number;
  readonly iova: bigint;
}

let nextWord = 0x1d0_0001;

/** Whether the device's write to `iova` arrives in a page of memory. Uses the scratch page. */
export async function writeArrives(
  edu: Edu,
  scratch: Scratch,
  iova: bigint,
  memory: TestMemory,
  page: number,
): Promise<boolean> {
  const [before, word] = [nextWord++, nextWord++];
  await give(edu, word, scratch.memory, scratch.page, scratch.iova);
  memory.set(page, before);
  await edu.store(iova);
  const found = memory.get(page);
  if (found !== before && found !== word) {
    throw new Error(`Page ${page} holds 0x${found.toString(16)}`);
  }
  return found === word;
}

/** Whether the device's read from `iova` gives what a page of memory holds. Uses the scratch page. */
export async function readArrives(
  edu: Edu,
  scratch: Scratch,
  iova: bigint,
  memory: TestMemory,
  page: number,
): Promise<boolean> {
  const word = nextWord++;
  memory.set(page, word);
  await edu.load(iova);
  scratch.memory.set(scratch.page, 0);
  await edu.store(scratch.iova);
  return scratch.memory.get(scratch.page) === word;
}
