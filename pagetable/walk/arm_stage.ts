/**
 * How an SMMUv3 reads VMSAv8-64 descriptors of either stage: Arm ARM D8.3, checks in the order
 * translation, address size, access flag, permission (SMMU §7.3).
 *
 * Transactions are unprivileged. Blocks at levels where the granule has none are invalid. Reserved
 * low address bits of blocks are ignored, as hardware does.
 */
import { PAGE_SHIFT, READ, WRITE } from "../page_table.ts";
import * as faults from "./fault.ts";
import { INVERSES, lowBits, POWERS } from "./arithmetic.ts";
import { StageDecoder } from "./stage.ts";
import { DEVICE_MEMORY, NORMAL_MEMORY } from "./walk_result.ts";

const BIT_AF = 0x400;
const BIT_AP1 = 0x40;
const BIT_AP2 = 0x80;
const HIGH_DBM = 1 << 19;
const HIGH_CONTIGUOUS = 1 << 20;
const HIGH_APTABLE_NO_USER = 1 << 29;
const HIGH_APTABLE_NO_WRITE = 1 << 30;

/** Where one stage's tables are and how hardware is told to read them. */
export interface ArmRegime {
  /** 1 or 2. */
  stage: number;
  /** Log2 of the granule in bytes: 12, 14 or 16. */
  granuleBits: number;
  /** Bits of the input address: 64 - TxSZ. */
  inputBits: number;
  /** Level of the first table, 0 to 3. */
  startLevel: number;
  /** Frame of the table address. */
  rootFrame: number;
  /** Bits 11:0 of the table address, in 8-byte units. */
  rootOffset: number;
  /** Bits of output addresses: the smaller of IPS or S2PS and OAS. */
  outputBits: number;
  /** Hardware sets the access flag. */
  setsAccess: boolean;
  /** Hardware turns writable-clean into writable-dirty. */
  setsDirty: boolean;
  /** A clear access flag is no fault (AFFD). */
  ignoresAccess: boolean;
  /** Attributes of table descriptors are ignored (HADx). */
  ignoresTables: boolean;
  /** Input page without tag bits (TBI); stage 1. */
  inputPage: number;
  /** MAIR, low and high half; stage 1. */
  mairLow: number;
  mairHigh: number;
}

/** Decodes one stage. */
export class ArmStageDecoder extends StageDecoder {
  /** The regime of the next walk; set its fields before it. */
  readonly regime: ArmRegime = {
    stage: 1,
    granuleBits: 12,
    inputBits: 48,
    startLevel: 0,
    rootFrame: 0,
    rootOffset: 0,
    outputBits: 48,
    setsAccess: false,
    setsDirty: false,
    ignoresAccess: false,
    ignoresTables: false,
    inputPage: 0,
    mairLow: 0,
    mairHigh: 0,
  };

  #tablePermission = READ | WRITE;

  /** The caller has checked the input region; the table address is rounded down to its alignment. */
  start(_page: number, access: number): faults.Fault {
    const regime = this.regime;
    this.leaf = false;
    this.level = regime.startLevel;
    this.access = access;
    this.#tablePermission = READ | WRITE;
    const indexBits = regime.inputBits - this.#shift(this.level);
    const base = regime.rootFrame * 512 + regime.rootOffset;
    const aligned = base - lowBits(base, indexBits < 3 ? 3 : indexBits);
    this.tableOffset = aligned & 511;
    this.tableFrame = (aligned - this.tableOffset) * INVERSES[9];
    return faults.NO_FAULT;
  }

  /** The page's bits for this level; at the start level all that the input has. */
  index(page: number): number {
    const regime = this.regime;
    const shift = this.#shift(this.level);
    const top = this.level === regime.startLevel;
    const bits = top ? regime.inputBits - shift : regime.granuleBits - 3;
    return (page * INVERSES[shift - PAGE_SHIFT]) & ((1 << bits) - 1);
  }

  reach(): number {
    return POWERS[this.#shift(this.level) - PAGE_SHIFT];
  }

  /** Judges a descriptor. */
  decode(page: number, low: number, high: number): faults.Fault {
    const regime = this.regime;
    const level = this.level;
    if ((low & 1) === 0) return faults.NOT_PRESENT;
    const tableOrPage = (low & 2) !== 0;
    if (level === 3 ? !tableOrPage : !tableOrPage && !this.#blocksAt(level)) {
      return faults.NOT_PRESENT;
    }
    const frame = this.#address(low, high);
    const leaf = level === 3 || !tableOrPage;
    const order = (leaf ? this.#shift(level) : regime.granuleBits) - PAGE_SHIFT;
    const units = POWERS[order];
    const first = frame - lowBits(frame, order);
    if (first >= POWERS[regime.outputBits - PAGE_SHIFT]) return faults.OUTPUT_TOO_WIDE;
    if (!leaf) {
      if (regime.stage === 1 && !regime.ignoresTables) {
        if ((high & HIGH_APTABLE_NO_WRITE) !== 0) this.#tablePermission &= ~WRITE;
        if ((high & HIGH_APTABLE_NO_USER) !== 0) this.#tablePermission = 0;
      }
      this.tableFrame = first;
      this.tableOffset = 0;
      this.level = level + 1;
      return faults.NO_FAULT;
    }
    this.leaf = true;
    if ((low & BIT_AF) === 0 && !regime.setsAccess && !regime.ignoresAccess) {
      return faults.ACCESS_FLAG;
    }
    this.frame = first + lowBits(page, order);
    this.pages = (high & HIGH_CONTIGUOUS) === 0 ? units : units * this.#group(level);
    return regime.stage === 1 ? this.#stageOne(low, high) : this.#stageTwo(low, high);
  }

  /** AF with HA, and the write bit of a writable-clean leaf with HD. */
  used(low: number, high: number, leaf: boolean, access: number): number {
    if (!leaf) return low;
    const regime = this.regime;
    let seen = regime.setsAccess ? low | BIT_AF : low;
    if (access === WRITE && regime.setsDirty && (high & HIGH_DBM) !== 0) {
      seen = regime.stage === 1 ? seen & ~BIT_AP2 : seen | BIT_AP2;
    }
    return seen;
  }

  #stageOne(low: number, high: number): faults.Fault {
    const regime = this.regime;
    const attribute = (low >>> 2) & 7;
    const mair = attribute < 4 ? regime.mairLow : regime.mairHigh;
    this.memoryType = ((mair >>> ((attribute & 3) * 8)) & 0xf0) === 0
      ? DEVICE_MEMORY
      : NORMAL_MEMORY;
    if ((low & BIT_AP1) === 0 || this.#tablePermission === 0) return faults.NO_USER;
    const writable = (low & BIT_AP2) === 0 || ((high & HIGH_DBM) !== 0 && regime.setsDirty);
    this.permission = writable ? this.#tablePermission : READ;
    return (this.permission & this.access) === this.access ? faults.NO_FAULT : faults.NO_WRITE;
  }

  #stageTwo(low: number, high: number): faults.Fault {
    this.memoryType = (low & 0x30) === 0 ? DEVICE_MEMORY : NORMAL_MEMORY;
    const writable = (low & BIT_AP2) !== 0 ||
      ((high & HIGH_DBM) !== 0 && this.regime.setsDirty);
    this.permission = ((low & BIT_AP1) !== 0 ? READ : 0) | (writable ? WRITE : 0);
    if ((this.permission & this.access) === this.access) return faults.NO_FAULT;
    return this.access === WRITE ? faults.NO_WRITE : faults.NO_READ;
  }

  /** Address shift of a level. */
  #shift(level: number): number {
    const granuleBits = this.regime.granuleBits;
    return granuleBits + (3 - level) * (granuleBits - 3);
  }

  #blocksAt(level: number): boolean {
    const { granuleBits, outputBits } = this.regime;
    if (level === 2) return true;
    return level === 1 && (granuleBits === 12 || (granuleBits === 16 && outputBits === 52));
  }

  /** Descriptors of a contiguous group (Arm ARM D8.7.1). */
  #group(level: number): number {
    if (this.regime.granuleBits === 12) return 16;
    if (this.regime.granuleBits === 16) return 32;
    return level === 3 ? 128 : 32;
  }

  /** Address bits 47:12, and with 64 KiB granule bits 51:48 from 15:12. */
  #address(low: number, high: number): number {
    const middle = (high & 0xffff) * 0x100000;
    if (this.regime.granuleBits < 16) return middle + (low >>> 12);
    return ((low >>> 12) & 0xf) * 2 ** 36 + middle + ((low >>> 16) << 4 >>> 0);
  }
}
