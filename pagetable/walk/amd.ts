/**
 * Walks an AMD IOMMU's tables: device table entry, then v1 tables (AMD IOMMU specification §2.2.2, §2.2.3).
 *
 * Codes are those of event log entries: 1 illegal device table entry, 2 I/O page fault, 3 and 4 device
 * table and page table hardware errors. An entry that is not valid has no reserved bits: all but V is
 * ignored. Guest translation (GV, GIOV, GLX) is not walked.
 */
import { NO_PASID } from "../invalidation.ts";
import { READ, WRITE } from "../page_table.ts";
import type { TableReader, TableWriter } from "../table_memory.ts";
import { frameOf } from "./arithmetic.ts";
import { AmdDecoder } from "./amd_stage.ts";
import type { RecordingWalker } from "./endpoint_walker.ts";
import * as faults from "./fault.ts";
import { recordUse, walkStage } from "./stage.ts";
import { STAGE_DEVICE, STAGE_ONE, type WalkResult } from "./walk_result.ts";

const ILLEGAL_DEVICE_TABLE_ENTRY = 1;
const IO_PAGE_FAULT = 2;
const DEVICE_TABLE_HARDWARE_ERROR = 3;
const PAGE_TABLE_HARDWARE_ERROR = 4;
const INVALID_DEVICE_REQUEST = 8;

/**
 * Reserved bits of a device table entry (§2.2.2.1), by half of its four 64-bit words: 6:2 and 63 of the first, 53:52
 * of the third, 14:0 and 53:48 of the last.
 */
const RESERVED: readonly number[] = [0x7c, 1 << 31, 0, 0, 0, 0x300000, 0x7fff, 0x3f0000];
/** The value of HAD that is reserved. */
const RESERVED_UPDATES = 2;

/** A walker from an AMD device table. */
export class AmdWalker implements RecordingWalker {
  recorder: TableWriter | null = null;

  readonly #reader: TableReader;
  readonly #tableFrame: number;
  readonly #pages: number;
  readonly #decoder = new AmdDecoder();

  /** Makes a walker of the tables behind the device table base register's value `devtab`. */
  constructor(reader: TableReader, devtab: bigint) {
    this.#reader = reader;
    this.#tableFrame = Number((devtab >> 12n) & 0xff_ffff_ffffn);
    this.#pages = Number(devtab & 0x1ffn) + 1;
  }

  walk(
    endpoint: number,
    page: number,
    access: number,
    result: WalkResult,
    pasid: number,
  ): boolean {
    result.clear();
    if (!(endpoint >= 0 && endpoint <= 0xffff) || endpoint >> 7 >= this.#pages) {
      return result.fail(faults.BAD_ENDPOINT, ILLEGAL_DEVICE_TABLE_ENTRY);
    }
    const reader = this.#reader;
    const frame = this.#tableFrame + (endpoint >> 7);
    const at = (endpoint & 127) * 4;
    if (!reader.load(frame, at + 1)) {
      return result.fail(faults.DEVICE_UNREADABLE, DEVICE_TABLE_HARDWARE_ERROR);
    }
    const domainId = reader.low & 0xffff;
    let reserved = 0;
    for (let word = 2; word < 4; word++) {
      if (!reader.load(frame, at + word)) {
        return result.fail(faults.DEVICE_UNREADABLE, DEVICE_TABLE_HARDWARE_ERROR);
      }
      reserved |= (reader.low & RESERVED[word * 2]) | (reader.high & RESERVED[word * 2 + 1]);
    }
    if (!reader.load(frame, at)) {
      return result.fail(faults.DEVICE_UNREADABLE, DEVICE_TABLE_HARDWARE_ERROR);
    }
    const low = reader.low;
    const high = reader.high;
    result.push(STAGE_DEVICE, 7, frame, at, low, high);
    if ((low & 1) === 0) return result.pass(page);
    reserved |= (low & RESERVED[0]) | (high & RESERVED[1]);
    if (reserved !== 0) return result.fail(faults.DEVICE_RESERVED, ILLEGAL_DEVICE_TABLE_ENTRY);
    const updates = (low >>> 7) & 3;
    if (updates === RESERVED_UPDATES) {
      return result.fail(faults.DEVICE_INVALID, ILLEGAL_DEVICE_TABLE_ENTRY);
    }
    if (pasid !== NO_PASID) return result.fail(faults.PASID_DISABLED, INVALID_DEVICE_REQUEST);
    // V without TV (§2.2.2): the entry says nothing about translation, so a request that needs it ends here.
    if ((low & 2) === 0) return result.fail(faults.BLOCKED, IO_PAGE_FAULT);
    result.domainId = domainId;
    const mode = (low >>> 9) & 7;
    if (mode === 7) return result.fail(faults.DEVICE_INVALID, ILLEGAL_DEVICE_TABLE_ENTRY);
    const permission = (high >>> 29) & (READ | WRITE);
    if (mode === 0) {
      // An entry that permits nothing blocks, also with an access of 0.
      if (permission === 0 || (permission & access) !== access) {
        return result.fail(faults.BLOCKED, IO_PAGE_FAULT);
      }
      result.pass(page);
      result.permission = permission;
      return true;
    }
    const decoder = this.#decoder;
    decoder.setRoot(frameOf(low, high), mode);
    decoder.setEntry(permission, updates);
    const fault = walkStage(decoder, STAGE_ONE, reader, page, access, result);
    if (fault !== faults.NO_FAULT) {
      const unreadable = fault === faults.TABLE_UNREADABLE;
      const code = unreadable ? PAGE_TABLE_HARDWARE_ERROR : IO_PAGE_FAULT;
      return result.failAt(STAGE_ONE, fault, code);
    }
    if (this.recorder !== null) recordUse(decoder, STAGE_ONE, this.recorder, access, result, 1);
    return result.found(decoder);
  }
}
