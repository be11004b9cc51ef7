/**
 * How an SMMU reads the stage-2 fields of an STE, and a context descriptor: decodes them and checks that they are
 * legal (SMMU §5.2, §5.4).
 *
 * The unit is little-endian (IDR0.TTENDIAN 0b10), does not stall (STALL_MODEL 0b01), terminates with
 * aborts only (TERM_MODEL 1), walks VMSAv8-64 tables only (TTF 0b10) and without LPA2 (IDR5.DS 0), and is no
 * hypervisor's (Hyp 0). Fields of what it does not have (ATS, MPAM, permission indirection and so on)
 * are RES0 and ignored.
 */
import type { ArmRegime } from "./arm_stage.ts";
import * as faults from "./fault.ts";
import { frameOf, POWERS } from "./arithmetic.ts";
import { PAGE_SHIFT } from "../page_table.ts";

/** Physical address sizes by code. */
const SIZES: readonly number[] = [32, 36, 40, 42, 44, 48, 52, 52];
/** Log2 of the granule by TG0 and S2TG, and by TG1; 0 is illegal. */
const GRANULES: readonly number[] = [12, 16, 14, 0];
const UPPER_GRANULES: readonly number[] = [0, 14, 12, 16];

/** Code of a translation-class fault. */
export function armCodes(fault: faults.Fault): number {
  switch (fault) {
    case faults.TABLE_UNREADABLE:
      return 0x0b;
    case faults.OUTPUT_TOO_WIDE:
      return 0x11;
    case faults.ACCESS_FLAG:
      return 0x12;
    case faults.NO_READ:
    case faults.NO_WRITE:
    case faults.NO_USER:
      return 0x13;
    default:
      return 0x10;
  }
}

/**
 * Reads the stage-2 fields of an STE into `regime`.
 *
 * @returns false if they are illegal.
 */
export function decodeStageTwo(
  ste: Int32Array,
  addressBits: number,
  updates: boolean,
  regime: ArmRegime,
): boolean {
  const fields = ste[5];
  const granuleBits = GRANULES[(fields >>> 14) & 3];
  if (granuleBits === 0 || (fields & 1 << 19) === 0) return false;
  // S2ENDI and S2S: big-endian tables, and stalls.
  if ((fields & (1 << 20 | 1 << 25)) !== 0) return false;
  const outputBits = outputSize((fields >>> 16) & 7, addressBits, granuleBits);
  const size = fields & 0x3f;
  const inputBits = 64 - size;
  if (size > 39 || inputBits > (granuleBits === 16 ? 52 : 48)) return false;
  if (inputBits > addressBits) return false;
  const startLevel = (granuleBits === 12 ? 2 : 3) - ((fields >>> 6) & 3);
  if (startLevel < (granuleBits === 12 ? 0 : 1)) return false;
  const stride = granuleBits - 3;
  const topBits = inputBits - granuleBits - (3 - startLevel) * stride;
  if (topBits < 1 || topBits > stride + 4) return false;
  const setsAccess = (fields & 1 << 24) !== 0;
  const setsDirty = (fields & 1 << 23) !== 0;
  if ((setsAccess || setsDirty) && !updates) return false;
  const rootFrame = frameOf(ste[6], ste[7]);
  if (rootFrame >= POWERS[outputBits - PAGE_SHIFT]) return false;
  regime.stage = 2;
  regime.granuleBits = granuleBits;
  regime.inputBits = inputBits;
  regime.startLevel = startLevel;
  regime.rootFrame = rootFrame;
  regime.rootOffset = (ste[6] & 0xff0) >>> 3;
  regime.outputBits = outputBits;
  regime.setsAccess = setsAccess;
  regime.setsDirty = setsDirty && setsAccess;
  regime.ignoresAccess = (fields & 1 << 21) !== 0;
  return true;
}

/**
 * Reads a context descriptor into `regime`, for the half of the address space that `page` is in.
 *
 * @returns NO_FAULT; PASID_INVALID if the descriptor is illegal, INPUT_TOO_WIDE if the page is in neither half,
 * NOT_PRESENT if its half is disabled (EPD).
 */
export function decodeContext(
  cd: Int32Array,
  page: number,
  addressBits: number,
  updates: boolean,
  regime: ArmRegime,
): faults.Fault {
  const low = cd[0];
  const high = cd[1];
  // AA64 and A must be set, S must not.
  if ((high & (1 << 9 | 1 << 14 | 1 << 12)) !== (1 << 9 | 1 << 14)) return faults.PASID_INVALID;
  const lowerOff = (low & 1 << 14) !== 0;
  const upperOff = (low & 1 << 30) !== 0;
  // ENDI: big-endian tables. Ignored if no table is walked.
  if ((low & 1 << 15) !== 0 && !(lowerOff && upperOff)) return faults.PASID_INVALID;
  const lowerGranule = GRANULES[(low >>> 6) & 3];
  const upperGranule = UPPER_GRANULES[(low >>> 22) & 3];
  if (!lowerOff && !legalHalf(cd, 2, low & 0x3f, lowerGranule, addressBits)) {
    return faults.PASID_INVALID;
  }
  if (!upperOff && !legalHalf(cd, 4, (low >>> 16) & 0x3f, upperGranule, addressBits)) {
    return faults.PASID_INVALID;
  }
  const setsAccess = (high & 1 << 11) !== 0;
  const setsDirty = (high & 1 << 10) !== 0;
  if ((setsAccess || setsDirty) && !updates) return faults.PASID_INVALID;

  const input = stripTag(page, (high & 1 << 6) !== 0, (high & 1 << 7) !== 0);
  const upper = input >= 2 ** 51;
  if (upper ? upperOff : lowerOff) return faults.NOT_PRESENT;
  const granuleBits = upper ? upperGranule : lowerGranule;
  const size = upper ? (low >>> 16) & 0x3f : low & 0x3f;
  const pages = POWERS[52 - size];
  if (upper ? input < 2 ** 52 - pages : input >= pages) return faults.INPUT_TOO_WIDE;
  const at = upper ? 4 : 2;
  const inputBits = 64 - size;
  const stride = granuleBits - 3;
  regime.stage = 1;
  regime.granuleBits = granuleBits;
  regime.inputBits = inputBits;
  regime.startLevel = 4 - Math.max(1, Math.ceil((inputBits - granuleBits) / stride));
  regime.rootFrame = frameOf(cd[at], cd[at + 1]);
  regime.rootOffset = (cd[at] & 0xff0) >>> 3;
  regime.outputBits = outputSize(high & 7, addressBits, granuleBits);
  regime.setsAccess = setsAccess;
  regime.setsDirty = setsDirty && setsAccess;
  regime.ignoresAccess = (high & 1 << 3) !== 0;
  regime.ignoresTables = (cd[at] & 2) !== 0;
  regime.mairLow = cd[6];
  regime.mairHigh = cd[7];
  regime.inputPage = input;
  return faults.NO_FAULT;
}

/**
 * Whether one half's fields are legal: a granule that there is, TxSZ from 16 (12 where addresses have 52
 * bits and the granule is 64 KiB) to 39, and a table within the output size, its low half at word `at`.
 */
function legalHalf(
  cd: Int32Array,
  at: number,
  size: number,
  granuleBits: number,
  addressBits: number,
): boolean {
  if (granuleBits === 0) return false;
  const least = granuleBits === 16 && addressBits === 52 ? 12 : 16;
  if (size < least || size > 39) return false;
  return frameOf(cd[at], cd[at + 1]) <
    POWERS[outputSize(cd[1] & 7, addressBits, granuleBits) - PAGE_SHIFT];
}

/** With TBI, bits 63:56 are a tag: the address continues bit 55. */
function stripTag(page: number, lower: boolean, upper: boolean): number {
  if (!lower && !upper) return page;
  const inside = page % 2 ** 44;
  const top = inside >= 2 ** 43;
  if (top ? upper : lower) return top ? inside + (2 ** 52 - 2 ** 44) : inside;
  return page;
}

/** The smaller of what the code says and what the hardware has; 52 bits only with 64 KiB granule. */
function outputSize(code: number, addressBits: number, granuleBits: number): number {
  const size = Math.min(SIZES[code], addressBits);
  return granuleBits === 16 ? size : Math.min(size, 48);
}
