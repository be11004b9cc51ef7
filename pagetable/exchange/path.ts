/** The path of a walk in words: which table each entry was in, and what its fields say. */
import { type EntryFields, entryFields, type EntryKind, fieldOfBit } from "./entry_fields.ts";
import { STAGE_DEVICE, STAGE_TWO, type WalkResult } from "../walk/walk_result.ts";

/** An entry that a walk read. */
export interface DescribedEntry {
  /**
   * The table it was in: `root`, `context`, `PASID directory`, `PASID`, `L1STD`, `STE`, `L1CD`, `CD`, `DTE`, or the level
   * of a page table as the format's specification numbers it, such as `L4`; with two stages `S1 L4` and `S2 L4`.
   */
  readonly table: string;
  /** Level as the format's specification numbers it. */
  readonly level: number;
  /** Where the entry is, a byte address in hexadecimal. */
  readonly at: string;
  /** Its value, or its first 8 bytes, in hexadecimal. */
  readonly entry: string;
  /** What its fields say. */
  readonly fields: EntryFields;
}

/** Formats by stage, where a walk has two. */
const STAGES: Readonly<Record<string, readonly [first: EntryKind, second: EntryKind]>> = {
  vtd: ["vtd-fs", "vtd-ss"],
  smmuv3: ["smmuv3-s1", "smmuv3-s2"],
};

/** Device tables by level; VT-d's by mode. */
const VTD_LEGACY: Readonly<Record<number, readonly [string, EntryKind]>> = {
  2: ["root", "vtd-root"],
  1: ["context", "vtd-context"],
};
const VTD_SCALABLE: Readonly<Record<number, readonly [string, EntryKind]>> = {
  4: ["root", "vtd-root"],
  3: ["context", "vtd-scalable-context"],
  2: ["PASID directory", "vtd-pasid-directory"],
  1: ["PASID", "vtd-pasid"],
};

/**
 * The entries that a walk read, in their order. Of one that failed, the last is the one that refused, if any was read.
 *
 * @param format Name of the format of the only stage; of two stages, that of either, or `vtd-nested`, `smmuv3-nested`.
 */
export function describePath(format: string, walk: WalkResult): readonly DescribedEntry[] {
  return Array.from({ length: walk.depth }, (_, at) => {
    const value = walk.entryValue(at);
    const [table, kind] = tableOf(format, walk, at);
    return {
      table,
      level: walk.pathLevel[at],
      at: `0x${walk.entryAddress(at).toString(16)}`,
      entry: `0x${value.toString(16)}`,
      fields: entryFields(kind, value),
    };
  });
}

/**
 * The name of the field that has a bit of an entry that a walk read; empty if none that is named here has.
 *
 * @param format As {@linkcode describePath} takes it.
 * @param at Which entry of the walk, from 0 on.
 * @param bit Which bit of its first 64.
 */
export function bitName(format: string, walk: WalkResult, at: number, bit: number): string {
  return fieldOfBit(tableOf(format, walk, at)[1], bit);
}

/** A path as lines: `context 0x100002180 = 0x100003001  P=1 SSPTPTR=0x100003000`. */
export function pathLines(path: readonly DescribedEntry[]): readonly string[] {
  return path.map(({ table, at, entry, fields }) => {
    const values = Object.entries(fields).map(([name, value]) => `${name}=${value}`);
    return `${table} ${at} = ${entry}  ${values.join(" ")}`;
  });
}

/** The name of the table that an entry of a walk is in, and what kind of entry it is. */
function tableOf(format: string, walk: WalkResult, at: number): readonly [string, EntryKind] {
  if (walk.pathStage[at] === STAGE_DEVICE) return deviceTable(format, walk, at);
  const isNested = format.endsWith("-nested") ||
    walk.pathStage.subarray(0, walk.depth).includes(STAGE_TWO);
  return pageTable(format, walk, at, isNested);
}

function familyOf(format: string): string {
  return format.split("-")[0];
}

function pageTable(
  format: string,
  walk: WalkResult,
  at: number,
  isNested: boolean,
): readonly [string, EntryKind] {
  const stage = walk.pathStage[at] === STAGE_TWO ? 1 : 0;
  const level = walk.pathLevel[at];
  const name = isNested ? `S${stage + 1} L${level}` : `L${level}`;
  const kind = isNested ? STAGES[familyOf(format)][stage] : format as EntryKind;
  // Bit 1 of a descriptor above level 3 says that it leads to a table (Arm D8.3.1).
  const isTable = familyOf(format) === "smmuv3" && level < 3 && (walk.pathLow[at] & 3) === 3;
  return [name, isTable ? "arm-table" : kind];
}

function deviceTable(format: string, walk: WalkResult, at: number): readonly [string, EntryKind] {
  const level = walk.pathLevel[at];
  switch (familyOf(format)) {
    case "vtd":
      return (walk.pathLevel[0] === 4 ? VTD_SCALABLE : VTD_LEGACY)[level];
    case "smmuv3":
      if (level === 2) return ["L1STD", "smmu-l1std"];
      if (level === 1) return ["STE", "smmu-ste"];
      return isFirstContext(walk, at) ? ["L1CD", "smmu-l1cd"] : ["CD", "smmu-cd"];
    default:
      return ["DTE", "amd-dte"];
  }
}

/** Whether an entry below the STE is in the first of two levels of context descriptors: the STE says how many there are. */
function isFirstContext(walk: WalkResult, at: number): boolean {
  const ste = walk.pathLevel.indexOf(1);
  const format = (walk.pathLow[ste] >>> 4) & 3;
  const contextBits = walk.pathHigh[ste] >>> 27;
  if ((format !== 1 && format !== 2) || contextBits === 0) return false;
  for (let i = ste + 1; i < at; i++) {
    if (walk.pathStage[i] === STAGE_DEVICE) return false;
  }
  return true;
}
