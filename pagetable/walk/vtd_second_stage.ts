/**
 * How VT-d hardware reads second-stage entries: VT-d §3.7, §9.8 and the fault conditions of §7.1.3.
 *
 * Permissions of an entry are checked before reserved bits: an entry that permits nothing is not
 * present, whatever else it holds.
 */
import { PAGE_SHIFT, READ, WRITE } from "../page_table.ts";
import * as faults from "./fault.ts";
import { frameOf, POWERS } from "./arithmetic.ts";
import { PageStageDecoder } from "./page_stage.ts";
import { reservedAddress, touchesInterrupts } from "./vtd_capabilities.ts";

const BIT_PS = 0x80;
const BIT_A = 0x100;
const BIT_D = 0x200;
const BIT_SNP = 0x800;
const HIGH_TM = 0x4000_0000;

/** Decodes second-stage tables. */
export class VtdSecondStageDecoder extends PageStageDecoder {
  /** Whether hardware sets A and D bits (SSADE). */
  updates = false;

  readonly #inputBits: number;
  readonly #snoop: boolean;
  readonly #reservedHigh: number;

  /**
   * Makes a decoder for hardware whose addresses have `addressBits` (HAW), whose input is at most
   * `inputBits` (MGAW) wide, and which knows the SNP bit or reserves it (ECAP.SC or scalable mode).
   */
  constructor(addressBits: number, inputBits: number, snoop: boolean) {
    super();
    this.#inputBits = inputBits;
    this.#snoop = snoop;
    // Address bits from HAW to 51 are reserved, and so is bit 62.
    this.#reservedHigh = HIGH_TM | (reservedAddress(addressBits) & 0xfffff);
  }

  /** Input must be below 2^min(MGAW, AGAW). */
  start(page: number, access: number): faults.Fault {
    this.begin(access, READ | WRITE);
    const reach = 9 * this.levels;
    const width = this.#inputBits - PAGE_SHIFT;
    return page >= POWERS[reach < width ? reach : width] ? faults.INPUT_TOO_WIDE : faults.NO_FAULT;
  }

  decode(page: number, low: number, high: number): faults.Fault {
    const permitted = low & (READ | WRITE);
    if (permitted === 0) return faults.NOT_PRESENT;
    if ((permitted & this.access) !== this.access) {
      return this.access === WRITE ? faults.NO_WRITE : faults.NO_READ;
    }
    this.permission &= permitted;
    if ((high & this.#reservedHigh) !== 0) return faults.RESERVED_BITS;
    const level = this.level;
    const frame = frameOf(low, high);
    const large = level > 1 && (low & BIT_PS) !== 0;
    if (large && level > 3) return faults.RESERVED_BITS;
    if (level > 1 && !large) {
      if ((low & BIT_SNP) !== 0) return faults.RESERVED_BITS;
      return this.enter(frame, level - 1);
    }
    if ((low & BIT_SNP) !== 0 && !this.#snoop) return faults.RESERVED_BITS;
    this.leaf = true;
    const pages = level === 1 ? 1 : level === 2 ? 512 : 262144;
    if ((low & ((pages - 1) << 12)) !== 0) return faults.RESERVED_BITS;
    if (touchesInterrupts(frame, pages)) return faults.INTERRUPT_RANGE;
    this.pages = pages;
    this.frame = pages === 1 ? frame : frame + (page & (pages - 1));
    return faults.NO_FAULT;
  }

  /** A on every entry, D on the leaf of a write, with SSADE only. */
  used(low: number, _high: number, leaf: boolean, access: number): number {
    if (!this.updates) return low;
    return low | BIT_A | (leaf && access === WRITE ? BIT_D : 0);
  }
}
