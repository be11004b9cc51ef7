/**
 * How VT-d hardware reads first-stage entries: VT-d §3.6, §9.7 and SDM volume 3 §4.5.
 *
 * Requests are user accesses: U/S must be set on the whole path. Reserved bits are judged before
 * permissions, as the processor does.
 *
 * @module
 */
import { READ, WRITE } from "../page_table.ts";
import {
  type Fault,
  INTERRUPT_RANGE,
  NO_FAULT,
  NO_USER,
  NO_WRITE,
  NOT_CANONICAL,
  NOT_PRESENT,
  RESERVED_BITS,
} from "./fault.ts";
import { INVERSES, POWERS } from "./powers.ts";
import type { StageDecoder } from "./stage.ts";
import { DEVICE, NORMAL } from "./walk_result.ts";

const BIT_P = 1;
const BIT_RW = 2;
const BIT_US = 4;
const BIT_PCD = 0x10;
const BIT_A = 0x20;
const BIT_D = 0x40;
const BIT_PS = 0x80;
const INTERRUPT_FIRST = 0xfee00;
const INTERRUPT_LAST = 0xfeeff;

/** Decodes first-stage tables. */
export class VtdFirstStageDecoder implements StageDecoder {
  tableFrame = 0;
  /** Tables are whole pages. */
  readonly tableOffset: number = 0;
  /** 5 for the PML5 down to 1 for the page table. */
  level = 0;
  leaf = false;
  frame = 0;
  pages = 0;
  permission = 0;
  memoryType: number = NORMAL;
  /** Whether leaf outputs are final: a first stage over a second one may name any address. */
  outputIsFinal = true;

  readonly #reservedHigh: number;
  #rootFrame = 0;
  #levels = 4;
  #access = READ;

  /** Makes a decoder for addresses of `addressBits` (HAW). */
  constructor(addressBits: number) {
    this.#reservedHigh = addressBits >= 52
      ? 0
      : 0xfffff & ~(2 ** Math.max(addressBits - 32, 0) - 1);
  }

  /** Points the decoder at a table of 4 or 5 levels. */
  setRoot(rootFrame: number, levels: number): void {
    this.#rootFrame = rootFrame;
    this.#levels = levels;
  }

  /** Input must be canonical: bits above 47 (or 56) equal to it. */
  start(page: number, access: number): Fault {
    this.tableFrame = this.#rootFrame;
    this.level = this.#levels;
    this.leaf = false;
    this.permission = READ | WRITE;
    this.#access = access;
    const half = POWERS[9 * this.#levels - 1];
    return page < half || page >= 2 ** 52 - half ? NO_FAULT : NOT_CANONICAL;
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
    if ((low & BIT_P) === 0) return NOT_PRESENT;
    if ((high & this.#reservedHigh) !== 0) return RESERVED_BITS;
    const level = this.level;
    const large = level > 1 && (low & BIT_PS) !== 0;
    if (large && level > 3) return RESERVED_BITS;
    const pages = level === 1 ? 1 : level === 2 ? 512 : 262144;
    // Bit 12 of a large leaf is PAT, the rest below its size is reserved.
    if (large && (low & ((pages - 1) << 12) & ~0x1000) !== 0) return RESERVED_BITS;
    if ((low & BIT_US) === 0) return NO_USER;
    if ((low & BIT_RW) === 0) {
      if (this.#access === WRITE) return NO_WRITE;
      this.permission = READ;
    }
    const frame = (high & 0xfffff) * 0x100000 + (low >>> 12);
    if (level > 1 && !large) {
      this.tableFrame = frame;
      this.level = level - 1;
      return NO_FAULT;
    }
    this.leaf = true;
    this.pages = pages;
    const first = large ? frame - (frame & 1) : frame;
    if (this.outputIsFinal && first <= INTERRUPT_LAST && first + pages > INTERRUPT_FIRST) {
      return INTERRUPT_RANGE;
    }
    this.frame = first + (page & (pages - 1));
    this.memoryType = (low & BIT_PCD) !== 0 ? DEVICE : NORMAL;
    return NO_FAULT;
  }

  /** A on every entry, D on the leaf of a write; always on. */
  used(low: number, _high: number, leaf: boolean, access: number): number {
    return low | BIT_A | (leaf && access === WRITE ? BIT_D : 0);
  }
}
