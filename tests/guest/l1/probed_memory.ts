/**
 * What several devices reach at I/O pages, found out by their DMA: in which frame of memory a write arrives, and which frame
 * a read comes from.
 *
 * A transfer of an edu takes 100 ms of the machine's time, so several devices transfer at the same time. Each frame of
 * memory has a stamp that is new each time, so that what a device has read before is not mistaken for it.
 *
 * @module
 */
import type { Edu } from "./edu.ts";

/** What a device reaches at an I/O page: a frame, or nothing. */
export type Reached = number | "nothing";

/** A device, and two I/O pages that it always reaches, each with the words of the frame behind it. */
export interface Probe {
  readonly edu: Edu;
  readonly sourcePage: number;
  readonly source: BigUint64Array;
  readonly sinkPage: number;
  readonly sink: BigUint64Array;
}

/** Words of 8 bytes in a page; the stamp is the first, what devices write is in the middle. */
const PAGE_WORDS = 512;
const WRITTEN = 256;

let nextStamp = 1n << 32n;

/** The frame in which each device's write to its page arrives. All are written at the same time. */
export async function findWrites(
  probes: readonly Probe[],
  pages: readonly number[],
  memory: BigUint64Array,
): Promise<readonly Reached[]> {
  const frames = memory.length / PAGE_WORDS;
  const stamps = probes.map(() => nextStamp++);
  for (let frame = 0; frame < frames; frame++) memory[frame * PAGE_WORDS + WRITTEN] = 0n;
  await Promise.all(probes.map(async ({ edu, source, sourcePage }, i) => {
    source[0] = stamps[i];
    await edu.load(bytesOf(sourcePage));
    await edu.store(bytesOf(pages[i]) + BigInt(WRITTEN * 8));
  }));
  const found = new Map<bigint, number>();
  for (let frame = 0; frame < frames; frame++) {
    found.set(memory[frame * PAGE_WORDS + WRITTEN], frame);
  }
  return stamps.map((stamp) => found.get(stamp) ?? "nothing");
}

/** The frame that each device's read from its page comes from. All are read at the same time. */
export async function findReads(
  probes: readonly Probe[],
  pages: readonly number[],
  memory: BigUint64Array,
): Promise<readonly Reached[]> {
  const frames = memory.length / PAGE_WORDS;
  const base = nextStamp;
  nextStamp += BigInt(frames);
  for (let frame = 0; frame < frames; frame++) memory[frame * PAGE_WORDS] = base + BigInt(frame);
  return await Promise.all(probes.map(async ({ edu, sink, sinkPage }, i) => {
    await edu.load(bytesOf(pages[i]));
    await edu.store(bytesOf(sinkPage));
    const frame = sink[0] - base;
    return frame >= 0n && frame < frames ? Number(frame) : "nothing";
  }));
}

function bytesOf(page: number): bigint {
  return BigInt(page) * 4096n;
}
