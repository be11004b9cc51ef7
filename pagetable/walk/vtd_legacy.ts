/**
 * Walks VT-d's legacy-mode tables: root table, context table, second stage (VT-d §9.1, §9.3, §3.4.2).
 *
 * Fault codes are those of VT-d §7.1.3, whether or not the fault is recorded (FPD). A request with PASID has no
 * meaning in legacy mode (0x31). An input inside the interrupt range is not a DMA address (§3.14): it is
 * reported as an interrupt request with code 0, because no DMA fault is recorded for it.
 */
import { NO_PASID } from "../invalidation.ts";
import { READ } from "../page_table.ts";
import type { TableReader, TableWriter } from "../table_memory.ts";
import { frameOf } from "./arithmetic.ts";
import type { RecordingWalker } from "./endpoint_walker.ts";
import * as faults from "./fault.ts";
import { walkStage } from "./stage.ts";
import { reservedAddress, touchesInterrupts, type VtdCapabilities } from "./vtd_capabilities.ts";
import { VtdSecondStageDecoder } from "./vtd_second_stage.ts";
import { STAGE_DEVICE, STAGE_ONE, type WalkResult } from "./walk_result.ts";

/** A walker from RTADDR_REG with translation table mode 00. */
export class VtdLegacyWalker implements RecordingWalker {
  /** Not used: legacy-mode hardware sets no bits. */
  recorder: TableWriter | null = null;

  readonly #reader: TableReader;
  readonly #rootFrame: number;
  readonly #decoder: VtdSecondStageDecoder;
  readonly #reservedHigh: number;
  readonly #deviceTlb: boolean;
  readonly #mostLevels: number;

  /** Makes a walker of the tables behind root table `rootFrame`, read through `reader`. */
  constructor(reader: TableReader, rootFrame: number, capabilities: VtdCapabilities = {}) {
    const addressBits = capabilities.addressBits ?? 52;
    this.#reader = reader;
    this.#rootFrame = rootFrame;
    this.#mostLevels = capabilities.mostLevels ?? 5;
    this.#decoder = new VtdSecondStageDecoder(
      addressBits,
      capabilities.inputBits ?? 57,
      capabilities.snoopControl ?? false,
    );
    this.#reservedHigh = reservedAddress(addressBits);
    this.#deviceTlb = capabilities.deviceTlb ?? false;
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
    const reader = this.#reader;
    const bus = endpoint >> 8;
    if (!reader.load(this.#rootFrame, bus * 2 + 1)) return result.fail(faults.ROOT_UNREADABLE, 8);
    const rest = reader.low | reader.high;
    if (!reader.load(this.#rootFrame, bus * 2)) return result.fail(faults.ROOT_UNREADABLE, 8);
    let low = reader.low;
    let high = reader.high;
    result.push(STAGE_DEVICE, 2, this.#rootFrame, bus * 2, low, high);
    if ((low & 1) === 0) return result.fail(faults.ROOT_NOT_PRESENT, 1);
    if (rest !== 0 || (low & 0xffe) !== 0 || (high & this.#reservedHigh) !== 0) {
      return result.fail(faults.ROOT_RESERVED, 0xa);
    }
    const contextFrame = frameOf(low, high);
    const devfn = endpoint & 0xff;
    if (!reader.load(contextFrame, devfn * 2 + 1)) return result.fail(faults.DEVICE_UNREADABLE, 9);
    const upperLow = reader.low;
    const upperHigh = reader.high;
    if (!reader.load(contextFrame, devfn * 2)) return result.fail(faults.DEVICE_UNREADABLE, 9);
    low = reader.low;
    high = reader.high;
    result.push(STAGE_DEVICE, 1, contextFrame, devfn * 2, low, high);
    if ((low & 1) === 0) return result.fail(faults.DEVICE_NOT_PRESENT, 2);
    if (
      (low & 0xff0) !== 0 || (high & this.#reservedHigh) !== 0 ||
      (upperLow & 0xff000080) !== 0 || upperHigh !== 0
    ) return result.fail(faults.DEVICE_RESERVED, 0xb);
    result.domainId = (upperLow >>> 8) & 0xffff;
    const type = (low >>> 2) & 3;
    const levels = (upperLow & 7) + 2;
    if (type === 3 || (type === 1 && !this.#deviceTlb) || levels < 3 || levels > this.#mostLevels) {
      return result.fail(faults.DEVICE_INVALID, 3);
    }
    if (pasid !== NO_PASID) return result.fail(faults.PASID_DISABLED, 0x31);
    if (touchesInterrupts(page, 1)) return result.fail(faults.INTERRUPT_REQUEST, 0);
    if (type === 2) return result.pass(page);
    const decoder = this.#decoder;
    decoder.setRoot(frameOf(low, high), levels);
    const fault = walkStage(decoder, STAGE_ONE, reader, page, access, result);
    if (fault !== faults.NO_FAULT) {
      const unreadableRoot = fault === faults.TABLE_UNREADABLE && result.depth === 2;
      return result.failAt(STAGE_ONE, fault, unreadableRoot ? 3 : legacyCode(fault, access));
    }
    return result.found(decoder);
  }
}

/** The legacy-mode code of a second-stage fault. */
function legacyCode(fault: faults.Fault, access: number): number {
  switch (fault) {
    case faults.INPUT_TOO_WIDE:
      return 4;
    case faults.TABLE_UNREADABLE:
      return 7;
    case faults.RESERVED_BITS:
      return 0xc;
    case faults.INTERRUPT_RANGE:
      return 0xe;
    default:
      return access === READ ? 6 : 5;
  }
}
