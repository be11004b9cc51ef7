/**
 * Walks VT-d's scalable-mode tables: root, context, PASID directory and table, then the first stage,
 * the second, both, or none (VT-d §9.2, §9.4 to §9.6, §3.4.3, §3.8).
 *
 * Fault codes are those of VT-d §7.1.3's scalable-mode half. A request without PASID uses the context
 * entry's RID_PASID and, unlike one with PASID, is never translated inside the interrupt range (§3.14).
 */
import { NO_PASID } from "../invalidation.ts";
import type { TableReader, TableWriter } from "../table_memory.ts";
import { frameOf } from "./arithmetic.ts";
import type { RecordingWalker } from "./endpoint_walker.ts";
import * as faults from "./fault.ts";
import { NestedReader } from "./nested_reader.ts";
import { recordUse, type StageDecoder, walkStage } from "./stage.ts";
import { reservedAddress, touchesInterrupts, type VtdCapabilities } from "./vtd_capabilities.ts";
import { VtdFirstStageDecoder } from "./vtd_first_stage.ts";
import { VtdSecondStageDecoder } from "./vtd_second_stage.ts";
import { STAGE_DEVICE, STAGE_ONE, STAGE_TWO, type WalkResult } from "./walk_result.ts";

/** PASID-granular translation types. */
const FIRST_STAGE = 1;
const SECOND_STAGE = 2;
const NESTED = 3;
const PASS_THROUGH = 4;

/** A walker from RTADDR_REG with translation table mode 01. */
export class VtdScalableWalker implements RecordingWalker {
  recorder: TableWriter | null = null;

  readonly #reader: TableReader;
  readonly #nested: NestedReader;
  readonly #rootFrame: number;
  readonly #first: VtdFirstStageDecoder;
  readonly #second: VtdSecondStageDecoder;
  readonly #reservedHigh: number;
  readonly #ridPasid: boolean;
  readonly #mostLevels: number;
  /** Bits of a context entry's first word that are reserved. */
  readonly #reservedContext: number;
  /** Words of the PASID entry under inspection, low half first. */
  readonly #entry: Int32Array<ArrayBuffer> = new Int32Array(16);

  /** Makes a walker of the tables behind root table `rootFrame`, read through `reader`. */
  constructor(reader: TableReader, rootFrame: number, capabilities: VtdCapabilities = {}) {
    const addressBits = capabilities.addressBits ?? 52;
    this.#reader = reader;
    this.#nested = new NestedReader(reader);
    this.#rootFrame = rootFrame;
    this.#first = new VtdFirstStageDecoder(addressBits);
    this.#second = new VtdSecondStageDecoder(addressBits, capabilities.inputBits ?? 57, true);
    this.#mostLevels = capabilities.mostLevels ?? 5;
    // DTE and PRE are reserved without a device TLB.
    this.#reservedContext = 0x1e0 | (capabilities.deviceTlb === true ? 0 : 0x14);
    this.#reservedHigh = reservedAddress(addressBits);
    this.#ridPasid = capabilities.ridPasid ?? true;
  }

  walk(
    endpoint: number,
    page: number,
    access: number,
    result: WalkResult,
    pasid: number,
  ): boolean {
    result.clear();
    if (!(endpoint >= 0 && endpoint <= 0xffff)) return result.fail(faults.BAD_ENDPOINT, 0);
    if (!this.#findEntry(endpoint, pasid, result)) return false;
    const entry = this.#entry;
    result.domainId = entry[2] & 0xffff;
    if (pasid === NO_PASID && touchesInterrupts(page, 1)) {
      return result.fail(faults.INTERRUPT_REQUEST, 0);
    }
    const type = (entry[0] >>> 6) & 7;
    if (type === PASS_THROUGH) return result.pass(page);
    if (type === SECOND_STAGE || type === NESTED) {
      const levels = ((entry[0] >>> 2) & 7) + 2;
      if (levels < 3 || levels > this.#mostLevels) return result.fail(faults.PASID_INVALID, 0x5b);
      this.#second.setRoot(frameOf(entry[0], entry[1]), levels);
      this.#second.updates = (entry[0] & 0x200) !== 0;
    }
    if (type === FIRST_STAGE || type === NESTED) {
      const mode = (entry[4] >>> 2) & 3;
      if (mode > 1 || mode + 4 > this.#mostLevels) return result.fail(faults.PASID_INVALID, 0x5b);
      this.#first.setRoot(frameOf(entry[4], entry[5]), mode + 4);
      this.#first.outputIsFinal = type === FIRST_STAGE;
    }
    if (type === FIRST_STAGE) return this.#walkOne(this.#first, firstCode, page, access, result);
    if (type === SECOND_STAGE) return this.#walkOne(this.#second, secondCode, page, access, result);
    if (type === NESTED) return this.#walkNested(page, access, result);
    return result.fail(faults.PASID_INVALID, 0x5b);
  }

  /** Reads device tables down to the PASID entry, into `#entry`. */
  #findEntry(endpoint: number, pasid: number, result: WalkResult): boolean {
    const reader = this.#reader;
    const devfn = endpoint & 0xff;
    const rootIndex = (endpoint >> 8) * 2 + (devfn >> 7);
    if (!reader.load(this.#rootFrame, rootIndex)) return result.fail(faults.ROOT_UNREADABLE, 0x38);
    result.push(STAGE_DEVICE, 4, this.#rootFrame, rootIndex, reader.low, reader.high);
    if ((reader.low & 1) === 0) return result.fail(faults.ROOT_NOT_PRESENT, 0x39);
    if ((reader.low & 0xffe) !== 0 || (reader.high & this.#reservedHigh) !== 0) {
      return result.fail(faults.ROOT_RESERVED, 0x3a);
    }
    const contextFrame = frameOf(reader.low, reader.high);
    const at = (devfn & 127) * 4;
    if (!reader.load(contextFrame, at + 1)) return result.fail(faults.DEVICE_UNREADABLE, 0x40);
    const ridPasid = this.#ridPasid ? reader.low & 0xfffff : 0;
    let reserved = (reader.low & 0xffe00000) | reader.high;
    for (const word of [at + 2, at + 3]) {
      if (!reader.load(contextFrame, word)) return result.fail(faults.DEVICE_UNREADABLE, 0x40);
      reserved |= reader.low | reader.high;
    }
    if (!reader.load(contextFrame, at)) return result.fail(faults.DEVICE_UNREADABLE, 0x40);
    const low = reader.low;
    const high = reader.high;
    result.push(STAGE_DEVICE, 3, contextFrame, at, low, high);
    if ((low & 1) === 0) return result.fail(faults.DEVICE_NOT_PRESENT, 0x41);
    if (
      reserved !== 0 || (low & this.#reservedContext) !== 0 || (high & this.#reservedHigh) !== 0
    ) {
      return result.fail(faults.DEVICE_RESERVED, 0x42);
    }
    if (pasid !== NO_PASID && (low & 8) === 0) return result.fail(faults.PASID_DISABLED, 0x45);
    const used = pasid === NO_PASID ? ridPasid : pasid;
    if (used >= 1 << (((low >>> 9) & 7) + 13)) {
      return result.fail(faults.PASID_TOO_BIG, pasid === NO_PASID ? 0x48 : 0x46);
    }
    return this.#findPasid(frameOf(low, high), used, result);
  }

  #findPasid(directory: number, pasid: number, result: WalkResult): boolean {
    const reader = this.#reader;
    const frame = directory + (pasid >> 15);
    const index = (pasid >> 6) & 511;
    if (!reader.load(frame, index)) return result.fail(faults.PASID_DIRECTORY_UNREADABLE, 0x50);
    result.push(STAGE_DEVICE, 2, frame, index, reader.low, reader.high);
    if ((reader.low & 1) === 0) return result.fail(faults.PASID_DIRECTORY_NOT_PRESENT, 0x51);
    if ((reader.low & 0xffc) !== 0 || (reader.high & this.#reservedHigh) !== 0) {
      return result.fail(faults.PASID_DIRECTORY_RESERVED, 0x52);
    }
    const table = frameOf(reader.low, reader.high);
    const at = (pasid & 63) * 8;
    const entry = this.#entry;
    for (let word = 7; word >= 0; word--) {
      if (!reader.load(table, at + word)) return result.fail(faults.PASID_UNREADABLE, 0x58);
      entry[word * 2] = reader.low;
      entry[word * 2 + 1] = reader.high;
    }
    result.push(STAGE_DEVICE, 1, table, at, entry[0], entry[1]);
    if ((entry[0] & 1) === 0) return result.fail(faults.PASID_NOT_PRESENT, 0x59);
    let reserved = (entry[0] & 0xc00) | (entry[2] & 0x7f0000) | (entry[4] & 0xf00);
    reserved |= (entry[1] | entry[5]) & this.#reservedHigh;
    for (let word = 6; word < 16; word++) reserved |= entry[word];
    return reserved === 0 || result.fail(faults.PASID_RESERVED, 0x5a);
  }

  /** Walks the only stage. */
  #walkOne(
    decoder: StageDecoder,
    codeOf: (fault: faults.Fault, root: boolean) => number,
    page: number,
    access: number,
    result: WalkResult,
  ): boolean {
    const from = result.depth;
    const fault = walkStage(decoder, STAGE_ONE, this.#reader, page, access, result);
    if (fault !== faults.NO_FAULT) {
      return result.failAt(STAGE_ONE, fault, codeOf(fault, result.depth === from));
    }
    if (this.recorder !== null) {
      recordUse(decoder, STAGE_ONE, this.recorder, access, result, from);
    }
    return result.found(decoder);
  }

  #walkNested(page: number, access: number, result: WalkResult): boolean {
    const first = this.#first;
    const second = this.#second;
    const nested = this.#nested;
    const from = result.depth;
    nested.begin(second, result, this.recorder, false);
    let fault = walkStage(first, STAGE_ONE, nested, page, access, result);
    if (fault !== faults.NO_FAULT) {
      const root = !result.reached(STAGE_ONE, from);
      if (fault !== faults.TABLE_UNREADABLE || nested.fault === faults.NO_FAULT) {
        return result.failAt(STAGE_ONE, fault, firstCode(fault, root));
      }
      const code = nestedCode(nested.fault, root, nested.failedAtRoot);
      return result.failAt(STAGE_TWO, nested.fault, code);
    }
    const middle = result.depth;
    result.reachPages = 1;
    fault = walkStage(second, STAGE_TWO, this.#reader, first.frame, access, result);
    if (fault !== faults.NO_FAULT) {
      const code = fault === faults.INPUT_TOO_WIDE ? 0x74 : secondCode(fault, false);
      return result.failAt(STAGE_TWO, fault, code);
    }
    // Recording walks the second stage again, so what was found is kept first.
    result.foundNested(first, second);
    if (this.recorder !== null) {
      recordUse(second, STAGE_TWO, this.recorder, access, result, middle);
      const end = result.depth;
      result.depth = middle;
      recordUse(first, STAGE_ONE, nested, access, result, from);
      result.depth = end;
    }
    return true;
  }
}

/** Code of a first-stage fault; `root` if the top table's entry was not read. */
function firstCode(fault: faults.Fault, root: boolean): number {
  switch (fault) {
    case faults.TABLE_UNREADABLE:
      return root ? 0x73 : 0x70;
    case faults.NOT_PRESENT:
      return 0x71;
    case faults.RESERVED_BITS:
      return 0x72;
    case faults.NOT_CANONICAL:
      return 0x80;
    case faults.NO_USER:
      return 0x81;
    case faults.INTERRUPT_RANGE:
      return 0x87;
    default:
      return 0x85;
  }
}

/** Code of a second-stage fault; `root` likewise. */
function secondCode(fault: faults.Fault, root: boolean): number {
  switch (fault) {
    case faults.TABLE_UNREADABLE:
      return root ? 0x7b : 0x78;
    case faults.RESERVED_BITS:
      return 0x7a;
    case faults.INPUT_TOO_WIDE:
      return 0x83;
    case faults.INTERRUPT_RANGE:
      return 0x87;
    default:
      return 0x79;
  }
}

/**
 * Code of a second-stage fault met while reading a first-stage table, the top one if `root`; `secondRoot` if
 * the second stage's top table was where it failed.
 */
function nestedCode(fault: faults.Fault, root: boolean, secondRoot: boolean): number {
  switch (fault) {
    case faults.INPUT_TOO_WIDE:
      return 0x74;
    case faults.NOT_PRESENT:
    case faults.NO_READ:
      return root ? 0x75 : 0x76;
    default:
      return secondCode(fault, secondRoot);
  }
}
