/**
 * The walker: one loop for every format and both stages.
 *
 * A decoder interprets entries as the hardware of one format does. Decoders are written from the specifications
 * and share nothing with `formats/` on purpose, so that a mistake in one of the two shows.
 * Pages and frames are numbers of 4 KiB.
 */
import type { TableReader, TableWriter } from "../table_memory.ts";
import { type Fault, NO_FAULT, TABLE_UNREADABLE } from "./fault.ts";
import { NORMAL_MEMORY, STAGE_ONE, type WalkResult } from "./walk_result.ts";

/** How one stage of tables reads to hardware. A decoder holds the state of the walk under way. */
export abstract class StageDecoder {
  /** Frame of the 4 KiB page where the current table starts. */
  tableFrame = 0;
  /** Where in that page it starts, in units of 8 bytes. */
  tableOffset = 0;
  /** Level of the current table, as the specification numbers levels. */
  level = 0;
  /** After {@linkcode decode}: whether the entry was a leaf. */
  leaf = false;
  /** After a leaf: output frame of the page. */
  frame = 0;
  /** After a leaf: its size in pages. */
  pages = 0;
  /** After a leaf: what the path permits. */
  permission = 0;
  /** After a leaf: memory type, as `WalkResult` has them. */
  memoryType: number = NORMAL_MEMORY;
  /** The access that the walk is for: READ, WRITE or 0. */
  protected access = 0;

  /** Begins a walk at the top table: checks the input address. */
  abstract start(page: number, access: number): Fault;
  /** Index of the page's entry in the current table. */
  abstract index(page: number): number;
  /** Checks an entry of the current table, and moves on to the next table or to the leaf. */
  abstract decode(page: number, low: number, high: number): Fault;
  /** Pages that one entry of the current table reaches. */
  abstract reach(): number;
  /** What hardware writes into the low half of an entry that this access went through. */
  abstract used(low: number, high: number, leaf: boolean, access: number): number;
}

/**
 * Walks one stage for `page`, and adds the entries to the path of `result`; the decoder holds what was found. An
 * `access` of 0 needs no permission: it finds whatever is mapped.
 */
export function walkStage(
  decoder: StageDecoder,
  stage: number,
  reader: TableReader,
  page: number,
  access: number,
  result: WalkResult,
): Fault {
  let fault = decoder.start(page, access);
  if (fault !== NO_FAULT) return fault;
  for (;;) {
    const reach = decoder.reach();
    if (stage === STAGE_ONE) result.reachPages = reach;
    const at = decoder.tableOffset + decoder.index(page);
    const frame = decoder.tableFrame + (at >>> 9);
    const index = at & 511;
    if (!reader.load(frame, index)) return TABLE_UNREADABLE;
    const low = reader.low;
    const high = reader.high;
    result.push(stage, decoder.level, frame, index, low, high, reach);
    fault = decoder.decode(page, low, high);
    if (fault !== NO_FAULT) return fault;
    if (decoder.leaf) return NO_FAULT;
  }
}

/**
 * Sets accessed and dirty bits, as hardware does after a successful access, in the entries of `stage` from path
 * position `from` on; the last of them is the leaf.
 */
export function recordUse(
  decoder: StageDecoder,
  stage: number,
  writer: TableWriter,
  access: number,
  result: WalkResult,
  from: number,
): void {
  let leaf = true;
  for (let at = result.depth - 1; at >= from; at--) {
    if (result.pathStage[at] !== stage) continue;
    const low = decoder.used(result.pathLow[at], result.pathHigh[at], leaf, access);
    leaf = false;
    if (low !== result.pathLow[at]) {
      writer.storeLow(result.pathFrame[at], result.pathIndex[at], low);
    }
  }
}
