/**
 * Reading and damaging table words in tests.
 *
 * @module
 */
import { assert } from "@std/assert";
import {
  createPageTable,
  HardwareTable,
  type PageTableOptions,
  type TableMemory,
  type TranslationUnit,
  WalkResult,
} from "../../pagetable/mod.ts";

/** Makes a page table that must not fail. */
export function makeTable(
  format: string,
  memory: TableMemory,
  options: PageTableOptions = {},
): HardwareTable {
  const table = createPageTable(format, memory, options);
  assert(table instanceof HardwareTable);
  return table;
}

/** The 64-bit word at index `index` of physical page `frame`; indexes beyond 511 go on in the next pages. */
export function word(memory: TableMemory, frame: number, index: number): bigint {
  assert(memory.load(frame + (index >> 9), index & 511));
  return (BigInt(memory.high >>> 0) << 32n) | BigInt(memory.low >>> 0);
}

/** Replaces that word. */
export function setWord(memory: TableMemory, frame: number, index: number, value: bigint): void {
  const at = (frame - memory.baseFrame) * 1024 + index * 2;
  memory.words[at] = Number(BigInt.asIntN(32, value));
  memory.words[at + 1] = Number(BigInt.asIntN(32, value >> 32n));
}

/** The entries of the page tables that lead to a page, from the top. */
export function pathWords(
  unit: TranslationUnit,
  endpoint: number,
  page: number,
  result: WalkResult = new WalkResult(),
): { readonly frame: number; readonly index: number; readonly value: bigint }[] {
  unit.walk(endpoint, page, 0, result);
  return Array.from({ length: result.depth }, (_, at) => ({
    frame: result.pathFrame[at],
    index: result.pathIndex[at],
    value: result.entryValue(at),
  })).filter((_, at) => result.pathStage[at] !== 0);
}

/** What a walk failed with: name, code and stage; or that it did not. */
export function faultOf(
  unit: TranslationUnit,
  endpoint: number,
  page: number,
  access: number,
  pasid?: number,
): string {
  const result = new WalkResult();
  if (unit.walk(endpoint, page, access, result, pasid)) return "ok";
  const stage = ["", " stage 1", " stage 2"][result.faultStage];
  return `${result.faultName} 0x${result.faultCode.toString(16)}${stage}`;
}
