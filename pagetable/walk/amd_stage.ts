/**
 * How AMD IOMMUs read v1 tables: AMD IOMMU specification §2.2.3.
 *
 * Permissions are ANDed over the device table entry, tables and leaf. Levels may be skipped, if the
 * address bits of the skipped levels are zero.
 */
import { READ, WRITE } from "../page_table.ts";
import * as faults from "./fault.ts";
import { frameOf, INVERSES, lowBits, POWERS } from "./arithmetic.ts";
import { PageStageDecoder } from "./page_stage.ts";
import { DEVICE_MEMORY, NORMAL_MEMORY } from "./walk_result.ts";

const BIT_A = 0x20;
const BIT_D = 0x40;
const HIGH_FC = 1 << 28;

/** Decodes AMD v1 tables. */
export class AmdDecoder extends PageStageDecoder {
  #rootPermission = READ | WRITE;
  #updates = 0;

  /** Sets what the device table entry permits, and its HAD. */
  setEntry(permission: number, updates: number): void {
    this.#rootPermission = permission;
    this.#updates = updates;
  }

  /** Input must be below 2^(12 + 9 levels); six levels take all 64 bits. */
  start(page: number, access: number): faults.Fault {
    this.begin(access, this.#rootPermission);
    if (page >= POWERS[9 * this.levels]) return faults.INPUT_TOO_WIDE;
    return this.#checkPermission();
  }

  decode(page: number, low: number, high: number): faults.Fault {
    if ((low & 1) === 0) return faults.NOT_PRESENT;
    this.permission &= (high >>> 29) & 3;
    const fault = this.#checkPermission();
    if (fault !== faults.NO_FAULT) return fault;
    const level = this.level;
    const next = (low >>> 9) & 7;
    const frame = frameOf(low, high);
    if (next !== 0 && next !== 7) {
      if (next >= level) return faults.RESERVED_BITS;
      if (next < level - 1) {
        const skipped = lowBits(Math.floor(page * INVERSES[9 * next]), 9 * (level - 1 - next));
        if (skipped !== 0) return faults.NOT_PRESENT;
      }
      return this.enter(frame, next);
    }
    this.leaf = true;
    let order = 9 * (level - 1);
    if (next === 7) {
      let ones = 0;
      for (let rest = frame; rest % 2 === 1; rest = (rest - 1) / 2) ones++;
      if (ones + 1 <= order || ones + 1 >= order + 9) return faults.RESERVED_BITS;
      order = ones + 1;
    }
    this.pages = POWERS[order];
    this.frame = order === 0 ? frame : frame - lowBits(frame, order) + lowBits(page, order);
    this.memoryType = (high & HIGH_FC) === 0 ? DEVICE_MEMORY : NORMAL_MEMORY;
    return faults.NO_FAULT;
  }

  /** With HAD: A, and D on the leaf of a write. */
  used(low: number, _high: number, leaf: boolean, access: number): number {
    if (this.#updates === 0 || !leaf) return low;
    return low | BIT_A | (this.#updates === 3 && access === WRITE ? BIT_D : 0);
  }

  #checkPermission(): faults.Fault {
    if ((this.permission & this.access) === this.access) return faults.NO_FAULT;
    return this.access === WRITE ? faults.NO_WRITE : faults.NO_READ;
  }
}
