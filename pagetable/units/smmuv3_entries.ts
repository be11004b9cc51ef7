/** SMMUv3 stream table entries and context descriptors as words: SMMU §5.2 and §5.4. */
import { MAIR_LOW } from "../formats/arm_lpae.ts";
import type { HardwareTable } from "../builder/hardware_table.ts";
import type { LiveEntry } from "./live_update.ts";

/** Sizes of physical addresses by their code in IPS and S2PS. */
const ADDRESS_SIZES: readonly number[] = [32, 36, 40, 42, 44, 48, 52];

const STE_VALID = 1n;
const CONFIG_BYPASS = 4n << 1n;
const CONFIG_S1 = 5n << 1n;
const CONFIG_S2 = 6n << 1n;
/** S1CIR and S1COR write-back, S1CSH inner shareable: how context descriptors are fetched. */
const S1_FETCH = 1n << 2n | 1n << 4n | 3n << 6n;
const S1DSS_USE_CD0 = 2n;
const SHCFG_INCOMING = 1n << 44n;
const S2_AARCH64 = 1n << 51n;
const S2_HD = 1n << 55n;
const S2_HA = 1n << 56n;
const S2_RECORD = 1n << 58n;
/** Inner and outer write-back, inner shareable table walks. */
const S2_WALKS = 1n << 40n | 1n << 42n | 3n << 44n;

const CD_VALID = 1n << 31n;
const CD_WALKS = 1n << 8n | 1n << 10n | 3n << 12n;
const CD_EPD0 = 1n << 14n;
const CD_EPD1 = 1n << 30n;
const CD_AARCH64 = 1n << 41n;
const CD_HD = 1n << 42n;
const CD_HA = 1n << 43n;
const CD_RECORD = 1n << 45n;
const CD_ABORT = 1n << 46n;
const CD_ASET = 1n << 47n;

/** Where a stream's context descriptors are. */
export interface ContextTable {
  /** Frame of the table. */
  readonly frame: number;
  /** S1Fmt: 0 linear, 1 two-level with 4 KiB leaves. */
  readonly format: number;
  /** S1CDMax: log2 of the descriptors. */
  readonly bits: number;
}

/** An entry that is not valid. */
export function invalidEntry(): BigUint64Array<ArrayBuffer> {
  return new BigUint64Array(8);
}

/** An STE that passes everything, with the attributes it came with. */
export function bypassSte(): BigUint64Array<ArrayBuffer> {
  return BigUint64Array.of(STE_VALID | CONFIG_BYPASS, SHCFG_INCOMING, 0n, 0n, 0n, 0n, 0n, 0n);
}

/** An STE with stage 1 (`contexts`), stage 2 (`second`) or both. */
export function stageSte(
  contexts: ContextTable | null,
  second: HardwareTable | null,
  vmid: number,
): BigUint64Array<ArrayBuffer> {
  const ste = invalidEntry();
  ste[0] = STE_VALID;
  // The same in every configuration, so that going between them stays one store.
  ste[1] = SHCFG_INCOMING;
  ste[2] = BigInt(vmid);
  if (contexts !== null) {
    ste[0] |= CONFIG_S1 | BigInt(contexts.format) << 4n | BigInt(contexts.frame) << 12n |
      BigInt(contexts.bits) << 59n;
    ste[1] |= S1_FETCH | (contexts.bits > 0 ? S1DSS_USE_CD0 : 0n);
  }
  if (second !== null) {
    const { inputBits, outputBits, levels, tableOrder } = second.description;
    ste[0] |= CONFIG_S2;
    // SL0 counts from the lowest start level the granule allows: level 2 with 4 KiB, 3 otherwise.
    const startLevel = BigInt(tableOrder === 0 ? levels - 2 : levels - 1);
    ste[2] |= BigInt(64 - inputBits) << 32n | startLevel << 38n | S2_WALKS |
      granuleCode(tableOrder) << 46n | addressSizeCode(outputBits) << 48n | S2_AARCH64 | S2_RECORD |
      (second.tracksDirty ? S2_HA | S2_HD : 0n);
    ste[3] = BigInt(second.rootFrame) << 12n;
  }
  return ste;
}

/** A context descriptor for a stage-1 table in TTB0; TTB1 is disabled. */
export function contextDescriptor(table: HardwareTable, asid: number): BigUint64Array<ArrayBuffer> {
  const { inputBits, outputBits, tableOrder } = table.description;
  const cd = invalidEntry();
  cd[0] = BigInt(64 - inputBits) | granuleCode(tableOrder) << 6n | CD_WALKS | CD_EPD1 | CD_VALID |
    addressSizeCode(outputBits) << 32n | CD_AARCH64 | CD_RECORD | CD_ABORT | CD_ASET |
    (table.tracksDirty ? CD_HA | CD_HD : 0n) | BigInt(asid) << 48n;
  cd[1] = BigInt(table.rootFrame) << 12n;
  cd[3] = BigInt(MAIR_LOW);
  return cd;
}

/** What an SMMU uses of an STE. */
export const STE_ENTRY: LiveEntry = {
  validWord: 0,
  validBit: STE_VALID,
  used: (entry, mask) => {
    mask.fill(0n);
    mask[0] = STE_VALID;
    if ((entry[0] & STE_VALID) === 0n) return;
    mask[0] |= 7n << 1n;
    const config = (entry[0] >> 1n) & 7n;
    if (config < 4n) return;
    if ((config & 1n) !== 0n) {
      mask[0] |= bits(4n, 5n) | bits(6n, 51n) | bits(59n, 63n);
      mask[1] |= bits(0n, 7n) | bits(27n, 31n);
      mask[2] |= bits(0n, 15n);
    } else {
      mask[1] |= bits(44n, 45n);
    }
    if ((config & 2n) !== 0n) {
      mask[1] |= bits(25n, 25n) | bits(28n, 29n) | bits(44n, 45n);
      mask[2] |= bits(0n, 15n) | bits(32n, 58n);
      mask[3] |= bits(4n, 51n);
    }
  },
};

/** What an SMMU uses of a context descriptor. */
export const CD_ENTRY: LiveEntry = {
  validWord: 0,
  validBit: CD_VALID,
  used: (entry, mask) => {
    mask.fill(0n);
    mask[0] = CD_VALID;
    if ((entry[0] & CD_VALID) === 0n) return;
    mask.fill(bits(0n, 63n), 0, 4);
    if ((entry[0] & CD_EPD0) !== 0n) {
      mask[0] &= ~bits(0n, 13n);
      mask[1] = 0n;
    }
    if ((entry[0] & CD_EPD1) !== 0n) {
      mask[0] &= ~bits(16n, 29n);
      mask[2] = 0n;
    }
  },
};

/** TG0 and S2TG: 0 4 KiB, 1 64 KiB, 2 16 KiB. */
function granuleCode(tableOrder: number): bigint {
  return tableOrder === 0 ? 0n : tableOrder === 2 ? 2n : 1n;
}

function addressSizeCode(outputBits: number): bigint {
  return BigInt(ADDRESS_SIZES.indexOf(outputBits));
}

/** Bits `low` to `high`, inclusive. */
function bits(low: bigint, high: bigint): bigint {
  return (1n << (high + 1n)) - (1n << low);
}
