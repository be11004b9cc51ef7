/**
 * Walks an SMMUv3's tables: stream table, STE, context descriptor, then stage 1, stage 2 or both
 * (SMMU §3.3, §5.1 to §5.4), with the events of §7.3 as fault codes.
 *
 * A silently aborted stream (STE.Config 0xx) has code 0, because it has no event; other codes are given
 * whether or not the event is recorded (CD.R, STE.S2R). Table addresses are rounded down to their
 * alignment, as hardware does. All fields of an STE are checked before any is used (§5.2.2).
 */
import { NO_PASID } from "../invalidation.ts";
import type { TableReader, TableWriter } from "../table_memory.ts";
import { ArmStageDecoder } from "./arm_stage.ts";
import type { RecordingWalker } from "./endpoint_walker.ts";
import * as faults from "./fault.ts";
import { NestedReader } from "./nested_reader.ts";
import { frameOf, INVERSES, lowBits, POWERS } from "./arithmetic.ts";
import { armCodes, decodeContext, decodeStageTwo } from "./smmuv3_regimes.ts";
import { recordUse, walkStage } from "./stage.ts";
import { STAGE_DEVICE, STAGE_ONE, STAGE_TWO, type WalkResult } from "./walk_result.ts";
import { PAGE_SHIFT } from "../page_table.ts";

const F_STE_FETCH = 0x03;
const C_BAD_STREAMID = 0x02;
const C_BAD_STE = 0x04;
const F_STREAM_DISABLED = 0x06;
const C_BAD_SUBSTREAMID = 0x08;
const F_CD_FETCH = 0x09;
const C_BAD_CD = 0x0a;
const F_TRANSLATION = 0x10;
const F_ADDR_SIZE = 0x11;
/** Stage 1's tables in what stage 2 maps as device memory fail (§5.2). */
const S2PTW = 1 << 22;
/** Most bits of a StreamID. */
const STREAM_BITS = 32;
/** S1DSS: what requests without SubstreamID do; 0 and 3 terminate them. */
const BYPASS_STAGE_ONE = 1;
const USE_CONTEXT_ZERO = 2;

/** The registers that say where the stream table is, as values. */
export interface SmmuRegisters {
  /** SMMU_STRTAB_BASE: address in bits 51:6. */
  readonly strtabBase: bigint;
  /** SMMU_STRTAB_BASE_CFG: LOG2SIZE 5:0, SPLIT 10:6, FMT 17:16. */
  readonly strtabConfig: bigint;
}

/** Capabilities of the hardware that an SMMUv3 walker stands for. */
export interface SmmuCapabilities {
  /** Bits of physical addresses, OAS; default 52. */
  readonly addressBits?: number;
  /** Bits of SubstreamIDs, IDR1.SSIDSIZE; default 20. */
  readonly substreamBits?: number;
  /** Whether hardware can update access flag and dirty state (HTTU); default yes. */
  readonly updates?: boolean;
}

/** A walker from an SMMU's stream table. */
export class SmmuWalker implements RecordingWalker {
  recorder: TableWriter | null = null;

  readonly #reader: TableReader;
  readonly #nested: NestedReader;
  readonly #first = new ArmStageDecoder();
  readonly #second = new ArmStageDecoder();
  readonly #addressBits: number;
  readonly #substreamBits: number;
  readonly #updates: boolean;
  readonly #log2Size: number;
  readonly #split: number;
  readonly #twoLevel: boolean;
  /** Start of the stream table in units of 8 bytes. */
  readonly #base: number;
  /** Words of the STE and of the CD, low half first. */
  readonly #ste: Int32Array<ArrayBuffer> = new Int32Array(8);
  readonly #cd: Int32Array<ArrayBuffer> = new Int32Array(8);

  /** Makes a walker of the tables that `registers` name, read through `reader`. */
  constructor(
    reader: TableReader,
    registers: SmmuRegisters,
    capabilities: SmmuCapabilities = {},
  ) {
    this.#reader = reader;
    this.#nested = new NestedReader(reader);
    this.#addressBits = capabilities.addressBits ?? 52;
    this.#substreamBits = capabilities.substreamBits ?? 20;
    this.#updates = capabilities.updates ?? true;
    const config = Number(registers.strtabConfig & 0x3ffffn);
    this.#log2Size = Math.min(config & 0x3f, STREAM_BITS);
    const split = (config >> 6) & 0x1f;
    // Reserved values behave as 6 (§6.3.25).
    this.#split = split === 8 || split === 10 ? split : 6;
    this.#twoLevel = config >> 16 === 1;
    const base = Number((registers.strtabBase & 0xf_ffff_ffff_ffc0n) / 8n);
    const units = this.#twoLevel ? 2 ** (this.#log2Size - this.#split) : 8 * 2 ** this.#log2Size;
    this.#base = base - (base % Math.max(8, units));
  }

  walk(
    endpoint: number,
    page: number,
    access: number,
    result: WalkResult,
    pasid: number,
  ): boolean {
    result.clear();
    const at = this.#findSte(endpoint, result);
    if (at === -1) return false;
    const reader = this.#reader;
    const ste = this.#ste;
    for (let word = 0; word < 4; word++) {
      if (!load(reader, at + word)) return result.fail(faults.DEVICE_UNREADABLE, F_STE_FETCH);
      ste[word * 2] = reader.low;
      ste[word * 2 + 1] = reader.high;
    }
    pushAt(result, 1, at, ste[0], ste[1]);
    if ((ste[0] & 1) === 0) return result.fail(faults.DEVICE_NOT_PRESENT, C_BAD_STE);
    const config = (ste[0] >>> 1) & 7;
    if (config < 4) return result.fail(faults.BLOCKED, 0);
    const stageOne = (config & 1) !== 0;
    const stageTwo = (config & 2) !== 0;
    if (stageOne && !this.#legalStageOne(stageTwo)) {
      return result.fail(faults.DEVICE_INVALID, C_BAD_STE);
    }
    if (stageTwo && !decodeStageTwo(ste, this.#addressBits, this.#updates, this.#second.regime)) {
      return result.fail(faults.DEVICE_INVALID, C_BAD_STE);
    }
    if (pasid !== NO_PASID && !stageOne) {
      return result.fail(faults.PASID_DISABLED, C_BAD_SUBSTREAMID);
    }
    const vmid = ste[4] & 0xffff;
    if (stageOne) {
      const substream = this.#chooseSubstream(pasid, result);
      if (substream !== -1) return this.#walkFirst(substream, page, access, result, stageTwo, vmid);
      if (result.fault !== faults.NO_FAULT) return false;
    }
    // Stage 1 is bypassed: the input must fit the intermediate addresses (§3.4).
    if (page >= POWERS[this.#addressBits - PAGE_SHIFT]) {
      return result.failAt(STAGE_ONE, faults.INPUT_TOO_WIDE, F_ADDR_SIZE);
    }
    if (!stageTwo) return result.pass(page);
    result.domainId = vmid;
    return this.#walkSecond(page, access, result, STAGE_ONE);
  }

  /** Where the endpoint's STE is, in units of 8 bytes, or -1 after a fault. */
  #findSte(endpoint: number, result: WalkResult): number {
    if (!(endpoint >= 0 && endpoint < POWERS[this.#log2Size])) {
      result.fail(faults.BAD_ENDPOINT, C_BAD_STREAMID);
      return -1;
    }
    if (!this.#twoLevel) return this.#base + endpoint * 8;
    const reader = this.#reader;
    const at = this.#base + Math.floor(endpoint * INVERSES[this.#split]);
    if (!load(reader, at)) {
      result.fail(faults.ROOT_UNREADABLE, F_STE_FETCH);
      return -1;
    }
    pushAt(result, 2, at, reader.low, reader.high);
    const span = reader.low & 0x1f;
    const index = lowBits(endpoint, this.#split);
    if (span === 0 || span > this.#split + 1 || index >= POWERS[span - 1]) {
      result.fail(span === 0 ? faults.ROOT_NOT_PRESENT : faults.BAD_ENDPOINT, C_BAD_STREAMID);
      return -1;
    }
    const base = unitsOf(reader.low & ~0x3f, reader.high & 0xfffff);
    return base - lowBits(base, span + 2) + index * 8;
  }

  /** Whether the STE's stage-1 fields are legal: no S1STALLD, S1CDMax and S1ContextPtr in range. */
  #legalStageOne(stageTwo: boolean): boolean {
    const ste = this.#ste;
    if ((ste[2] & 1 << 27) !== 0) return false;
    if (this.#substreamBits !== 0 && ste[1] >>> 27 > this.#substreamBits) return false;
    // With stage 2 it is an intermediate address, which stage 2 checks.
    return stageTwo || frameOf(ste[0], ste[1]) <
        POWERS[this.#addressBits - PAGE_SHIFT];
  }

  /** S1CDMax: log2 of the CDs; 0 without SubstreamIDs, and ignored where the hardware has none. */
  #contextBits(): number {
    return this.#substreamBits === 0 ? 0 : this.#ste[1] >>> 27;
  }

  /** Which CD a request uses; -1 for none: stage 1 is bypassed, unless `result` has a fault. */
  #chooseSubstream(pasid: number, result: WalkResult): number {
    const bits = this.#contextBits();
    const withoutId = this.#ste[2] & 3;
    if (pasid === NO_PASID) {
      if (bits === 0 || withoutId === USE_CONTEXT_ZERO) return 0;
      if (withoutId === BYPASS_STAGE_ONE) return -1;
      result.fail(faults.BLOCKED, F_STREAM_DISABLED);
      return -1;
    }
    if (bits === 0 || pasid >= POWERS[bits]) {
      result.fail(
        bits === 0 ? faults.PASID_DISABLED : faults.PASID_TOO_BIG,
        C_BAD_SUBSTREAMID,
      );
      return -1;
    }
    if (pasid === 0 && withoutId === USE_CONTEXT_ZERO) {
      result.fail(faults.BLOCKED, F_STREAM_DISABLED);
      return -1;
    }
    return pasid;
  }

  #walkFirst(
    substream: number,
    page: number,
    access: number,
    result: WalkResult,
    nested: boolean,
    vmid: number,
  ): boolean {
    const reader = nested ? this.#nested : this.#reader;
    if (nested) {
      const protectedWalks = (this.#ste[5] & S2PTW) !== 0;
      this.#nested.begin(this.#second, result, this.recorder, protectedWalks);
    }
    if (!this.#fetchContext(substream, reader, result)) return false;
    const first = this.#first;
    const cd = this.#cd;
    let fault = decodeContext(cd, page, this.#addressBits, this.#updates, first.regime);
    if (fault === faults.PASID_INVALID) return result.fail(fault, C_BAD_CD);
    result.domainId = nested ? vmid : cd[1] >>> 16;
    if (fault !== faults.NO_FAULT) return result.failAt(STAGE_ONE, fault, F_TRANSLATION);
    const from = result.depth;
    fault = walkStage(first, STAGE_ONE, reader, first.regime.inputPage, access, result);
    if (fault !== faults.NO_FAULT) return this.#failRead(fault, nested, result, STAGE_ONE);
    if (!nested) {
      if (this.recorder !== null) {
        recordUse(first, STAGE_ONE, this.recorder, access, result, from);
      }
      return result.found(first);
    }
    const middle = result.depth;
    result.reachPages = 1;
    if (!this.#walkSecond(first.frame, access, result, STAGE_TWO)) return false;
    result.foundNested(first, this.#second);
    if (this.recorder !== null) {
      const end = result.depth;
      result.depth = middle;
      recordUse(first, STAGE_ONE, this.#nested, access, result, from);
      result.depth = end;
    }
    return true;
  }

  #walkSecond(page: number, access: number, result: WalkResult, stage: number): boolean {
    const second = this.#second;
    if (page >= POWERS[second.regime.inputBits - PAGE_SHIFT]) {
      return result.failAt(STAGE_TWO, faults.INPUT_TOO_WIDE, F_TRANSLATION);
    }
    const from = result.depth;
    const fault = walkStage(second, stage, this.#reader, page, access, result);
    if (fault !== faults.NO_FAULT) return result.failAt(STAGE_TWO, fault, armCodes(fault));
    if (this.recorder !== null) recordUse(second, stage, this.recorder, access, result, from);
    return result.found(second);
  }

  /** Reads the CD of a substream into `#cd`. */
  #fetchContext(
    substream: number,
    reader: TableReader,
    result: WalkResult,
  ): boolean {
    const ste = this.#ste;
    const nested = reader === this.#nested;
    let at = unitsOf(ste[0] & ~0x3f, ste[1] & 0xfffff);
    const format = (ste[0] >>> 4) & 3;
    // S1Fmt 3 is reserved and behaves as 0; a single CD has no format.
    if (format === 0 || format === 3 || this.#contextBits() === 0) {
      at += substream * 8;
    } else {
      const leafBits = format === 1 ? 6 : 10;
      const item = at + (substream >> leafBits);
      if (!load(reader, item)) return this.#failContext(nested, result);
      pushAt(result, 0, item, reader.low, reader.high);
      if ((reader.low & 1) === 0) {
        return result.fail(faults.PASID_DIRECTORY_NOT_PRESENT, C_BAD_SUBSTREAMID);
      }
      at = unitsOf(reader.low & ~0xfff, reader.high & 0xfffff) +
        (substream & (2 ** leafBits - 1)) * 8;
      // L2Ptr beyond the physical addresses (§3.4.3); an intermediate one is checked by stage 2.
      if (!nested && at >= POWERS[this.#addressBits - 3]) {
        return result.fail(faults.PASID_DIRECTORY_RESERVED, C_BAD_SUBSTREAMID);
      }
    }
    for (let word = 3; word >= 0; word--) {
      if (!load(reader, at + word)) return this.#failContext(nested, result);
      this.#cd[word * 2] = reader.low;
      this.#cd[word * 2 + 1] = reader.high;
    }
    pushAt(result, 0, at, this.#cd[0], this.#cd[1]);
    if (this.#cd[0] < 0) return true;
    return result.fail(faults.PASID_NOT_PRESENT, C_BAD_CD);
  }

  #failContext(nested: boolean, result: WalkResult): false {
    if (nested && this.#nested.fault !== faults.NO_FAULT) {
      return result.failAt(STAGE_TWO, this.#nested.fault, armCodes(this.#nested.fault));
    }
    return result.fail(faults.PASID_UNREADABLE, F_CD_FETCH);
  }

  #failRead(fault: faults.Fault, nested: boolean, result: WalkResult, stage: number): false {
    if (nested && fault === faults.TABLE_UNREADABLE && this.#nested.fault !== faults.NO_FAULT) {
      return result.failAt(STAGE_TWO, this.#nested.fault, armCodes(this.#nested.fault));
    }
    return result.failAt(stage, fault, armCodes(fault));
  }
}

/** Loads the word at `at`, an address in units of 8 bytes. */
function load(reader: TableReader, at: number): boolean {
  const index = at & 511;
  return reader.load((at - index) * INVERSES[9], index);
}

function pushAt(result: WalkResult, level: number, at: number, low: number, high: number): void {
  const index = at & 511;
  result.push(STAGE_DEVICE, level, (at - index) * INVERSES[9], index, low, high);
}

/** An address given in halves, in units of 8 bytes. */
function unitsOf(low: number, high: number): number {
  return high * 0x20000000 + (low >>> 3);
}
