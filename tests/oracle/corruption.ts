/**
 * Single wrong bits in tables: QEMU's IOMMU and our walker must still agree.
 *
 * Bits outside the address field of an entry, and those inside it that a large leaf reserves, are turned one at
 * a time in entries on the path to a mapped page.
 *
 * @module
 */
import {
  READ,
  STAGE_DEVICE,
  type TableMemory,
  type TranslationUnit,
  WalkResult,
  WRITE,
} from "../../pagetable/mod.ts";
import { TABLE_UNREADABLE } from "../../pagetable/walk/fault.ts";
import type { Random } from "../guest/random.ts";
import type { Agreement } from "./agreement.ts";
import type { Edu } from "./edu.ts";
import type { Judge } from "./judge.ts";
import type { Qtest } from "./qtest.ts";
import type { FrameRange, MadeMapping } from "./random_mappings.ts";

/** A bit of an entry that was turned. */
export interface Corruption {
  /** Number of the bit, 0 to 63. */
  readonly bit: number;
  /** The stage of the entry: one of the walker's `STAGE_…` constants. */
  readonly stage: number;
  /** Level of the entry as its specification counts. */
  readonly level: number;
}

/** What takes part. */
export interface CorruptionOptions {
  readonly machine: Qtest;
  readonly agreement: Agreement;
  readonly unit: Pick<TranslationUnit, "walk">;
  readonly memory: TableMemory;
  readonly judge: Judge;
  readonly edu: Edu;
  readonly mappings: readonly MadeMapping[];
  /** A page that has to keep its translation to the frame of the same number: the devices' scratch page. */
  readonly scratch: number;
  /** Frames that may be written to find out where an access goes. */
  readonly ram: readonly FrameRange[];
  /** Corruptions about which QEMU is known to be wrong, or which the specification leaves open. */
  readonly except: (corruption: Corruption) => boolean;
}

/** Turns `count` bits, one after another, and asks about an access beyond each. */
export async function askCorrupted(
  random: Random,
  count: number,
  options: CorruptionOptions,
): Promise<void> {
  const { machine, agreement, unit, memory, judge, edu, mappings, ram, except } = options;
  const result = new WalkResult();
  for (let asked = 0; asked < count;) {
    const { first, last } = random.pick(mappings);
    const page = first + random.below(last - first + 1);
    unit.walk(edu.bdf, page, READ, result);
    const step = random.below(result.depth);
    if (result.pathStage[step] === STAGE_DEVICE) continue;
    const leaf = step === result.depth - 1;
    const bit = random.pick(leaf ? LEAF_BITS : TABLE_BITS);
    const level = result.pathLevel[step];
    if (except({ bit, stage: result.pathStage[step], level })) continue;
    const word = ((result.pathFrame[step] - memory.baseFrame) * 512 + result.pathIndex[step]) * 2 +
      Math.floor(bit / 32);
    memory.words[word] ^= 1 << bit % 32;
    if (askable(page)) {
      await machine.writel(memory.baseFrame * 4096 + word * 4, memory.words[word] >>> 0);
      for (const access of ["r", "w"] as const) {
        await judge.invalidateAll();
        const iova = page * 4096 + 4 * random.below(1024);
        await agreement.ask({ edu, iova, access, about: `bit ${bit} of level ${level}` });
      }
      asked++;
    }
    memory.words[word] ^= 1 << bit % 32;
    await machine.writel(memory.baseFrame * 4096 + word * 4, memory.words[word] >>> 0);
  }
  await judge.invalidateAll();

  /**
   * Whether the devices still reach their scratch page, this page leads nowhere but to RAM, and its path through
   * nothing but our tables (QEMU could read tables anywhere).
   */
  function askable(page: number): boolean {
    return [READ, WRITE].every((access) => {
      if (!unit.walk(edu.bdf, options.scratch, access, result)) return false;
      if (result.frame !== options.scratch) return false;
      unit.walk(edu.bdf, page, access, result);
      if (!result.ok) return result.fault !== TABLE_UNREADABLE;
      return ram.some((one) => one.first <= result.frame && result.frame <= one.last);
    });
  }
}

/** Bits around the address of a table, and those that may be too low for a leaf. */
const TABLE_BITS = [...range(0, 11), ...range(52, 63)];
const LEAF_BITS = [...range(0, 20), ...range(52, 63)];

function range(first: number, last: number): readonly number[] {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}
