/** What a walk found: one object, filled again by every walk, so that a walk allocates nothing. */
import { PAGE_SIZE, READ, WRITE } from "../page_table.ts";
import { FAULT_NAMES, NO_FAULT } from "./fault.ts";

/** Entries a path can name: device tables and both stages of a nested walk. */
const PATH = 64;
/** Pages of a translation that is the identity everywhere. */
export const WHOLE_SPACE = 2 ** 52;

/** Memory types by {@linkcode WalkResult.memoryType}. */
export const MEMORY_TYPE_NAMES: readonly string[] = ["normal", "device"];
/** Ordinary cached memory, or a format without memory types. */
export const NORMAL_MEMORY = 0;
/** Uncached device memory. */
export const DEVICE_MEMORY = 1;

/** Stage of a path entry: a table of devices. */
export const STAGE_DEVICE = 0;
/** Stage of a path entry: the first or only stage of page tables. */
export const STAGE_ONE = 1;
/** Stage of a path entry: the second of two stages. */
export const STAGE_TWO = 2;

/** What a decoder knows after it has found a leaf. */
export interface FoundLeaf {
  /** Output frame. */
  readonly frame: number;
  /** What the path permits. */
  readonly permission: number;
  /** Size of the leaf in pages. */
  readonly pages: number;
  /** Index into {@linkcode MEMORY_TYPE_NAMES}. */
  readonly memoryType: number;
}

/** The outcome of one walk. */
export class WalkResult {
  /** Whether the access is translated. The fields below up to `bypass` mean something only then. */
  ok = false;
  /** Output frame of the page that was asked for. */
  frame = 0;
  /** What the whole path permits: an OR of READ and WRITE. */
  permission = 0;
  /** Pages of the leaf around it, the smaller one of two stages; aligned to its size. */
  leafPages = 0;
  /** Index into {@linkcode MEMORY_TYPE_NAMES}. */
  memoryType: number = NORMAL_MEMORY;
  /** Whether the endpoint's accesses pass untranslated. */
  bypass = false;
  /** Hardware domain id that the device table names; -1 where the walk did not get so far. */
  domainId: number = -1;
  /** Why not, as an index into `FAULT_NAMES`; 0 if translated. */
  fault: number = NO_FAULT;
  /** The hardware's own code: VT-d fault reason, SMMUv3 event, AMD event. */
  faultCode = 0;
  /** Which tables a failed walk failed in: one of the `STAGE_…` constants. */
  faultStage: number = STAGE_DEVICE;
  /** After a failed walk: how many pages, aligned to their number, the entry that failed it stands for. */
  reachPages = 0;
  /** Entries on the path, in the order they were read, the last one maybe being the one that failed. */
  depth = 0;
  /** Level of each entry as the format's specification numbers it. */
  readonly pathLevel: Int32Array<ArrayBuffer> = new Int32Array(PATH);
  /** Which kind of table each was in: one of the `STAGE_…` constants. */
  readonly pathStage: Uint8Array<ArrayBuffer> = new Uint8Array(PATH);
  /** Frame of the 4 KiB page that held each entry. */
  readonly pathFrame: Float64Array<ArrayBuffer> = new Float64Array(PATH);
  /** Which 8-byte unit of that page it was. */
  readonly pathIndex: Int32Array<ArrayBuffer> = new Int32Array(PATH);
  /** Pages that each entry of a page table stands for, aligned to their number; 0 for device tables. */
  readonly pathReach: Float64Array<ArrayBuffer> = new Float64Array(PATH);
  /** Low half of each entry. */
  readonly pathLow: Int32Array<ArrayBuffer> = new Int32Array(PATH);
  /** High half of each entry. */
  readonly pathHigh: Int32Array<ArrayBuffer> = new Int32Array(PATH);

  /** Name of the reason of a failed walk. */
  get faultName(): string {
    return FAULT_NAMES[this.fault];
  }

  /** Starts a walk. */
  clear(): void {
    this.ok = false;
    this.bypass = false;
    this.domainId = -1;
    this.fault = NO_FAULT;
    this.faultCode = 0;
    this.faultStage = STAGE_DEVICE;
    this.reachPages = WHOLE_SPACE;
    this.depth = 0;
  }

  /** Adds an entry that was read to the path; it translates `reach` pages. */
  push(
    stage: number,
    level: number,
    frame: number,
    index: number,
    low: number,
    high: number,
    reach: number = 0,
  ): void {
    const at = this.depth;
    if (at === PATH) return;
    this.pathStage[at] = stage;
    this.pathLevel[at] = level;
    this.pathFrame[at] = frame;
    this.pathIndex[at] = index;
    this.pathReach[at] = reach;
    this.pathLow[at] = low;
    this.pathHigh[at] = high;
    this.depth = at + 1;
  }

  /** Ends a walk that failed; always false. */
  fail(fault: number, code: number): false {
    this.ok = false;
    this.fault = fault;
    this.faultCode = code;
    return false;
  }

  /** As {@linkcode fail}, in the tables of a stage. */
  failAt(stage: number, fault: number, code: number): false {
    this.faultStage = stage;
    return this.fail(fault, code);
  }

  /** Whether an entry of `stage` was read at path position `from` or later. */
  reached(stage: number, from: number): boolean {
    for (let at = from; at < this.depth; at++) if (this.pathStage[at] === stage) return true;
    return false;
  }

  /** Ends a walk of one stage with what its decoder found; always true. */
  found(stage: FoundLeaf): true {
    this.ok = true;
    this.frame = stage.frame;
    this.permission = stage.permission;
    this.leafPages = stage.pages;
    this.memoryType = stage.memoryType;
    return true;
  }

  /** Ends a walk of two stages; always true. */
  foundNested(first: FoundLeaf, second: FoundLeaf): true {
    this.ok = true;
    this.frame = second.frame;
    this.permission = first.permission & second.permission;
    this.leafPages = Math.min(first.pages, second.pages);
    this.memoryType = first.memoryType === DEVICE_MEMORY ? DEVICE_MEMORY : second.memoryType;
    return true;
  }

  /** Ends a walk that passes the address through; always true. */
  pass(page: number): true {
    this.ok = true;
    this.bypass = true;
    this.frame = page;
    this.permission = READ | WRITE;
    this.leafPages = WHOLE_SPACE;
    this.memoryType = NORMAL_MEMORY;
    return true;
  }

  /** Byte address of path entry `at`. */
  entryAddress(at: number): bigint {
    return BigInt(this.pathFrame[at]) * BigInt(PAGE_SIZE) + BigInt(this.pathIndex[at] * 8);
  }

  /** Value of path entry `at`. */
  entryValue(at: number): bigint {
    return (BigInt(this.pathHigh[at] >>> 0) << 32n) | BigInt(this.pathLow[at] >>> 0);
  }
}
