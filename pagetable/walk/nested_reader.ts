/** Reads the tables of a first stage, whose addresses are intermediate ones, through the second stage. */
import { READ } from "../page_table.ts";
import type { TableReader, TableWriter } from "../table_memory.ts";
import { type Fault, NO_FAULT, NO_READ } from "./fault.ts";
import { recordUse, type StageDecoder, walkStage } from "./stage.ts";
import { DEVICE_MEMORY, STAGE_TWO, WalkResult } from "./walk_result.ts";

/** A reader of intermediate addresses. After a failed load, `fault` says what the second stage found. */
export class NestedReader implements TableWriter {
  low = 0;
  high = 0;
  /** The second stage's fault of the last load that failed; 0 if the memory itself was unreadable. */
  fault: Fault = NO_FAULT;
  /** Whether that fault was met in the second stage's top table, before any of its entries was read. */
  failedAtRoot = false;

  readonly #reader: TableReader;
  readonly #scratch: WalkResult = new WalkResult();
  #decoder: StageDecoder | null = null;
  #recorder: TableWriter | null = null;
  #result: WalkResult = this.#scratch;
  #refusesDevices = false;

  /** Makes a reader over physical memory. */
  constructor(reader: TableReader) {
    this.#reader = reader;
  }

  /**
   * Sets the second stage for one walk, whose path goes to `result`. With `refusesDevices` tables must not be
   * in device memory.
   */
  begin(
    decoder: StageDecoder,
    result: WalkResult,
    recorder: TableWriter | null,
    refusesDevices: boolean,
  ): void {
    this.#decoder = decoder;
    this.#result = result;
    this.#recorder = recorder;
    this.fault = NO_FAULT;
    this.#refusesDevices = refusesDevices;
  }

  /** Loads an entry of a table whose frame is an intermediate one. */
  load(frame: number, index: number): boolean {
    const real = this.#translate(frame, this.#result);
    if (real === -1) return false;
    if (!this.#reader.load(real, index)) return false;
    this.low = this.#reader.low;
    this.high = this.#reader.high;
    return true;
  }

  /** Stores the low half of an entry of such a table. */
  storeLow(frame: number, index: number, low: number): void {
    this.#scratch.clear();
    const real = this.#translate(frame, this.#scratch);
    if (real !== -1 && this.#recorder !== null) this.#recorder.storeLow(real, index, low);
  }

  #translate(frame: number, result: WalkResult): number {
    const decoder = this.#decoder;
    if (decoder === null) return -1;
    const from = result.depth;
    let fault = walkStage(decoder, STAGE_TWO, this.#reader, frame, READ, result);
    if (fault === NO_FAULT && this.#refusesDevices && decoder.memoryType === DEVICE_MEMORY) {
      fault = NO_READ;
    }
    if (fault !== NO_FAULT) {
      this.fault = fault;
      this.failedAtRoot = result.depth === from;
      return -1;
    }
    if (this.#recorder !== null) {
      recordUse(decoder, STAGE_TWO, this.#recorder, READ, result, from);
    }
    return decoder.frame;
  }
}
