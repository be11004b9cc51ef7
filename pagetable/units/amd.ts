/**
 * An AMD IOMMU's device table: AMD IOMMU specification §2.2.2.
 *
 * An entry that is not valid lets DMA pass, so in a new table every endpoint is blocked: valid, mode 0, no
 * permission. The permission bits IR and IW are in the high half of the entry's first word and work as its
 * valid bits: they are cleared first and set last, and the gather is flushed in between.
 */
import { EINVAL, ENOMEM, EOPNOTSUPP, type Errno, OK } from "../errno.ts";
import { checkOption } from "../format.ts";
import type { HardwareTable } from "../builder/hardware_table.ts";
import { DEVICE_ENTRY, NO_PASID } from "../invalidation.ts";
import { PAGE_WORDS_SHIFT, type TableMemory } from "../table_memory.ts";
import { AmdWalker } from "../walk/amd.ts";
import { BLOCKED } from "../walk/fault.ts";
import { DomainIds } from "./domain_ids.ts";
import type { TranslationUnit } from "./unit.ts";
import { UnitBase } from "./unit_base.ts";
import { addressHigh, addressLow, byteAddress } from "../address.ts";

/** Options of an AMD unit. */
export interface AmdUnitOptions {
  /** Bits of device ids that the table has entries for, 7 to 16; default 16. */
  readonly deviceBits?: number;
}

const VALID = 1 << 0;
const TRANSLATION_VALID = 1 << 1;
const MODE_SHIFT = 9;
/** HAD: hardware sets A and D. */
const HOST_ACCESS_DIRTY = 3 << 7;
const READ_WRITE = 3 << 29;
/** Log2 of the entries in a page. */
const ORDER_BITS = 7;
/** Words of an entry. */
const ENTRY_WORDS = 8;
/** Domain id of endpoints in bypass; not one that `attach` may be given. */
const BYPASS_ID = 0xffff;
const NONE = -1;

/** The device table of one AMD IOMMU. */
export class AmdUnit extends UnitBase implements TranslationUnit {
  /** Which hardware. */
  readonly family = "amd";

  readonly #order: number;
  readonly #ids = new DomainIds(1, 0xfffe);
  #table = NONE;

  /** Makes a unit whose table will be in `memory`; takes none yet. */
  constructor(memory: TableMemory, options: AmdUnitOptions = {}) {
    const bits = checkOption("device id bits", options.deviceBits ?? 16, ORDER_BITS, 16);
    super(memory, 2 ** bits - 1, BLOCKED, 2);
    this.#order = bits - ORDER_BITS;
  }

  /** Pages of table memory that the device table takes. */
  get tablePages(): number {
    return this.#table === NONE ? 0 : 1 << this.#order;
  }

  /** Takes `amdv1` tables. */
  attach(
    endpoint: number,
    table: HardwareTable,
    domainId?: number,
    pasid: number = NO_PASID,
  ): Errno {
    if (pasid !== NO_PASID) return EOPNOTSUPP;
    if (table.format !== "amdv1" || !this.isEndpoint(endpoint)) return EINVAL;
    const errno = this.#ids.take(table, domainId);
    if (errno !== OK) return errno;
    const id = this.#ids.idOf(table);
    const mode = table.description.levels << MODE_SHIFT;
    const updates = table.tracksDirty ? HOST_ACCESS_DIRTY : 0;
    if (this.#replace(endpoint, table.rootFrame, mode | updates, READ_WRITE, id)) return OK;
    this.#ids.release(id);
    return ENOMEM;
  }

  /** Version 1 tables have one stage. */
  attachNested(): Errno {
    return EOPNOTSUPP;
  }

  bypass(endpoint: number, pasid: number = NO_PASID): Errno {
    if (pasid !== NO_PASID) return EOPNOTSUPP;
    if (!this.isEndpoint(endpoint)) return EINVAL;
    return this.#replace(endpoint, 0, 0, READ_WRITE, BYPASS_ID) ? OK : ENOMEM;
  }

  detach(endpoint: number, pasid: number = NO_PASID): void {
    if (this.#table === NONE || pasid !== NO_PASID || !this.isEndpoint(endpoint)) return;
    this.#replace(endpoint, 0, 0, 0, 0);
  }

  /** `devtab`: the device table base register; 0 as long as nothing was attached. */
  registers(): Readonly<Record<string, bigint>> {
    if (this.#table === NONE) return { devtab: 0n };
    const base = byteAddress(this.memory.baseFrame + this.#table);
    return { devtab: base | BigInt((1 << this.#order) - 1) };
  }

  destroy(): void {
    if (this.#table !== NONE) {
      this.gather.addBlock(this.#table, this.#order, false);
      this.gather.everyDevice = true;
      this.#table = NONE;
      this.walker = null;
    }
    this.gather.flush();
  }

  /** Makes the table, in which every entry blocks. @returns false without memory. */
  #makeTable(): boolean {
    const memory = this.memory;
    const table = memory.allocate(this.#order);
    if (table === NONE) return false;
    const end = (table << PAGE_WORDS_SHIFT) + (this.lastEndpoint + 1) * ENTRY_WORDS;
    for (let item = table << PAGE_WORDS_SHIFT; item < end; item += ENTRY_WORDS) {
      memory.words[item] = VALID | TRANSLATION_VALID;
    }
    this.#table = table;
    this.walker = new AmdWalker(memory, this.registers().devtab);
    return true;
  }

  /** Gives the endpoint's entry a new value. @returns false, with nothing changed, without memory for the table. */
  #replace(
    endpoint: number,
    frame: number,
    bits: number,
    permission: number,
    id: number,
  ): boolean {
    if (this.#table === NONE && !this.#makeTable()) return false;
    const item = (this.#table << PAGE_WORDS_SHIFT) + endpoint * ENTRY_WORDS;
    const words = this.memory.words;
    const before = words[item + 2] & 0xffff;
    // Without permission whatever else the entry holds blocks.
    words[item + 1] &= ~READ_WRITE;
    this.gather.addDevice(DEVICE_ENTRY, endpoint, NO_PASID, before === 0 ? NONE : before);
    this.gather.flush();
    words[item] = VALID | TRANSLATION_VALID;
    words[item + 1] = 0;
    words[item + 3] = 0;
    words[item + 2] = id;
    words[item] = addressLow(frame) | bits | VALID | TRANSLATION_VALID;
    words[item + 1] = addressHigh(frame) | permission;
    this.gather.addDevice(DEVICE_ENTRY, endpoint, NO_PASID, NONE);
    if (before !== 0 && before !== BYPASS_ID) this.#ids.release(before);
    return true;
  }
}
