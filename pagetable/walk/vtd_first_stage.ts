/**
 * How VT-d hardware reads first-stage entries: VT-d §3.6, §9.7 and SDM volume 3 §4.5.
 *
 * Requests are user accesses: U/S must be set on the whole path. Reserved bits are checked before
 * permissions, as the processor does.
 */
import { READ, WRITE } from "../page_table.ts";
import * as faults from "./fault.ts";
import { frameOf, POWERS } from "./arithmetic.ts";
import { PageStageDecoder } from "./page_stage.ts";
import { reservedAddress, touchesInterrupts } from "./vtd_capabilities.ts";
import { DEVICE_MEMORY, NORMAL_MEMORY } from "./walk_result.ts";

const BIT_P = 1;
const BIT_RW = 2;
const BIT_US = 4;
const BIT_PCD = 0x10;
const BIT_A = 0x20;
const BIT_D = 0x40;
const BIT_PS = 0x80;

/** Decodes first-stage tables. */
export class VtdFirstStageDecoder extends PageStageDecoder {
  /** Whether leaf outputs are final: a first stage over a second one may name any address. */
  outputIsFinal = true;

  readonly #reservedHigh: number;

  /** Makes a decoder for addresses of `addressBits` (HAW). */
  constructor(addressBits: number) {
    super();
    this.#reservedHigh = reservedAddress(addressBits) & 0xfffff;
  }

  /** Input must be canonical: bits above 47 (or 56) equal to it. */
  start(page: number, access: number): faults.Fault {
    this.begin(access, READ | WRITE);
    const half = POWERS[9 * this.levels - 1];
    return page < half || page >= 2 ** 52 - half ? faults.NO_FAULT : faults.NOT_CANONICAL;
  }

  decode(page: number, low: number, high: number): faults.Fault {
    if ((low & BIT_P) === 0) return faults.NOT_PRESENT;
    if ((high & this.#reservedHigh) !== 0) return faults.RESERVED_BITS;
    const level = this.level;
    const large = level > 1 && (low & BIT_PS) !== 0;
    if (large && level > 3) return faults.RESERVED_BITS;
    const pages = level === 1 ? 1 : level === 2 ? 512 : 262144;
    // Bit 12 of a large leaf is PAT, the rest below its size is reserved.
    if (large && (low & ((pages - 1) << 12) & ~0x1000) !== 0) return faults.RESERVED_BITS;
    if ((low & BIT_US) === 0) return faults.NO_USER;
    if ((low & BIT_RW) === 0) {
      if (this.access === WRITE) return faults.NO_WRITE;
      this.permission = READ;
    }
    const frame = frameOf(low, high);
    if (level > 1 && !large) return this.enter(frame, level - 1);
    this.leaf = true;
    this.pages = pages;
    const first = large ? frame - (frame & 1) : frame;
    if (this.outputIsFinal && touchesInterrupts(first, pages)) return faults.INTERRUPT_RANGE;
    this.frame = first + (page & (pages - 1));
    this.memoryType = (low & BIT_PCD) !== 0 ? DEVICE_MEMORY : NORMAL_MEMORY;
    return faults.NO_FAULT;
  }

  /** A on every entry, D on the leaf of a write; always on. */
  used(low: number, _high: number, leaf: boolean, access: number): number {
    return low | BIT_A | (leaf && access === WRITE ? BIT_D : 0);
  }
}
