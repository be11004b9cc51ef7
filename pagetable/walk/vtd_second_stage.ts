/**
 * How VT-d hardware reads second-stage entries: VT-d §3.7, §9.8 and the fault conditions of §7.1.3.
 *
 * Within an entry permission is judged before reserved bits: an entry that permits nothing is not
 * present, whatever else it holds.
 *
 * @module
 */
import { PAGE_SHIFT, READ, WRITE } from "../page_table.ts";
import {
  type Fault,
  INPUT_TOO_WIDE,
  INTERRUPT_RANGE,
  NO_FAULT,
  NO_READ,
  NO_WRITE,
  NOT_PRESENT,
  RESERVED_BITS,
} from "./fault.ts";
import { INVERSES, POWERS } from "./powers.ts";
import type { StageDecoder } from "./stage.ts";
import { NORMAL } from "./walk_result.ts";

const BIT_PS = 0x80;
const BIT_A = 0x100;
const BIT_D = 0x200;
const BIT_SNP = 0x800;
const HIGH_TM = 0x4000_0000;
/** First and last frame of the interrupt address range, VT-d §3.14. */
const INTERRUPT_FIRST = 0xfee00;
const INTERRUPT_LAST = 0xfeeff;

/** Decodes second-stage tables. */
export class VtdSecondStageDecoder implements StageDecoder {
  tableFrame = 0;
  /** Tables are whole pages. */
  readonly tableOffset: number = 0;
  /** 5 for the PML5 down to 1 for the page table. */
  level = 0;
  leaf = false;
  frame = 0;
  pages = 0;
  permission = 0;
  readonly memoryType: number = NORMAL;
  /** Whether hardware sets A and D bits (SSADE). */
  updates = false;

  readonly #inputBits: number;
  readonly #snoop: boolean;
  readonly #reservedHigh: number;
  #rootFrame = 0;
  #levels = 4;
  #access = READ;

  /**
   * Makes a decoder for hardware whose addresses have `addressBits` (HAW), whose input is at most
   * `inputBits` (MGAW) wide, and which knows the SNP bit or reserves it (ECAP.SC or scalable mode).
   */
  constructor(addressBits: number, inputBits: number, snoop: boolean) {
    this.#inputBits = inputBits;
    this.#snoop = snoop;
    // Address bits from HAW to 51 are reserved, and so is bit 62.
    const wide = addressBits >= 52 ? 0 : 0xfffff & ~(2 ** Math.max(addressBits - 32, 0) - 1);
    this.#reservedHigh = HIGH_TM | wide;
  }

  /** Points the decoder at a table of `levels` levels. */
  setRoot(rootFrame: number, levels: number): void {
    this.#rootFrame = rootFrame;
    this.#levels = levels;
  }

  /** Input must be below 2^min(MGAW, AGAW). */
  start(page: number, access: number): Fault {
    this.tableFrame = this.#rootFrame;
    this.level = this.#levels;
    this.leaf = false;
    this.permission = READ | WRITE;
    this.#access = access;
    const reach = 9 * this.#levels;
    const width = this.#inputBits - PAGE_SHIFT;
    return page >= POWERS[reach < width ? reach : width] ? INPUT_TOO_WIDE : NO_FAULT;
  }

  /** Nine bits of the page number per level. */
  index(page: number): number {
    return (page * INVERSES[9 * (this.level - 1)]) & 511;
  }

  reach(): number {
    return POWERS[9 * (this.level - 1)];
  }

  /** Judges an entry. */
  decode(page: number, low: number, high: number): Fault {
    const permitted = low & (READ | WRITE);
    if (permitted === 0) return NOT_PRESENT;
    if ((permitted & this.#access) !== this.#access) {
      return this.#access === WRITE ? NO_WRITE : NO_READ;
    }
    this.permission &= permitted;
    if ((high & this.#reservedHigh) !== 0) return RESERVED_BITS;
    const level = this.level;
    const frame = (high & 0xfffff) * 0x100000 + (low >>> 12);
    const large = level > 1 && (low & BIT_PS) !== 0;
    if (large && level > 3) return RESERVED_BITS;
    if (level > 1 && !large) {
      if ((low & BIT_SNP) !== 0) return RESERVED_BITS;
      this.tableFrame = frame;
      this.level = level - 1;
      return NO_FAULT;
    }
    if ((low & BIT_SNP) !== 0 && !this.#snoop) return RESERVED_BITS;
    this.leaf = true;
    const pages = level === 1 ? 1 : level === 2 ? 512 : 262144;
    if ((low & ((pages - 1) << 12)) !== 0) return RESERVED_BITS;
    if (frame <= INTERRUPT_LAST && frame + pages > INTERRUPT_FIRST) return INTERRUPT_RANGE;
    this.pages = pages;
    this.frame = pages === 1 ? frame : frame + (page & (pages - 1));
    return NO_FAULT;
  }

  /** A on every entry, D on the leaf of a write, with SSADE only. */
  used(low: number, _high: number, leaf: boolean, access: number): number {
    if (!this.updates) return low;
    return low | BIT_A | (leaf && access === WRITE ? BIT_D : 0);
  }
}
