/**
 * VT-d legacy-mode device tables: root table and context tables (VT-d §9.1, §9.3).
 *
 * The root table is made with the first attachment, a bus's context table with the bus's first. A
 * context entry is changed present bit last; a present entry is first made not present, so that
 * hardware sees the old entry, none, or the new one; the gather is flushed in between, because hardware
 * may cache the old one until it is told (§6.5.3.3).
 *
 * @module
 */
import { EINVAL, ENOMEM, EOPNOTSUPP, type Errno, OK } from "../errno.ts";
import type { HardwareTable } from "../builder/hardware_table.ts";
import { DEVICE_ENTRY, InvalidationGather, NO_PASID } from "../invalidation.ts";
import { PAGE_WORDS_SHIFT, type TableMemory } from "../table_memory.ts";
import { VtdLegacyWalker } from "../walk/vtd_legacy.ts";
import type { WalkResult } from "../walk/walk_result.ts";
import { ROOT_NOT_PRESENT } from "../walk/fault.ts";
import { DomainIds } from "./domain_ids.ts";
import { clear64, pageOf, store64 } from "./entry_writer.ts";
import type { TranslationUnit } from "./unit.ts";
import type { VtdUnitOptions } from "./vtd_options.ts";
import { addressHigh, addressLow, byteAddress } from "../address.ts";

const PRESENT = 1;
const TYPE_SECOND_STAGE = 0 << 2;
const TYPE_PASS_THROUGH = 2 << 2;
const BUSES = 256;
const NONE = -1;

/** Legacy-mode device tables of one VT-d unit. */
export class VtdLegacyUnit implements TranslationUnit {
  /** Which hardware. */
  readonly family = "vtd";
  /** Largest source id. */
  readonly lastEndpoint = 0xffff;
  /** Device-table changes since the last flush. */
  readonly gather: InvalidationGather;

  readonly #memory: TableMemory;
  readonly #options: VtdUnitOptions;
  readonly #ids: DomainIds;
  readonly #bypassId: number;
  #root = NONE;
  #walker: VtdLegacyWalker | null = null;
  #tablePages = 0;

  /** Makes a unit whose tables will be in `memory`; takes none yet. */
  constructor(memory: TableMemory, options: VtdUnitOptions = {}) {
    this.#memory = memory;
    this.#options = options;
    this.#bypassId = options.bypassDomainId ?? 0xffff;
    this.#ids = new DomainIds(1, 0xfffe);
    this.gather = new InvalidationGather(memory);
  }

  /** Pages of table memory that the device tables take. */
  get tablePages(): number {
    return this.#tablePages;
  }

  attach(
    endpoint: number,
    table: HardwareTable,
    domainId?: number,
    pasid: number = NO_PASID,
  ): Errno {
    if (pasid !== NO_PASID) return EOPNOTSUPP;
    if (table.format !== "vtd-ss" || table.tracksDirty) return EINVAL;
    const id = this.#ids.take(table, domainId);
    if (id < 0) return id === -2 ? ENOMEM : EINVAL;
    const item = this.#reach(endpoint);
    if (item < 0) {
      this.#ids.release(id);
      return -item;
    }
    const width = table.description.levels - 2;
    this.#replace(endpoint, item, TYPE_SECOND_STAGE, table.rootFrame, width, id);
    return OK;
  }

  /** Legacy mode has one stage. */
  attachNested(): Errno {
    return EOPNOTSUPP;
  }

  bypass(endpoint: number, pasid: number = NO_PASID): Errno {
    if (pasid !== NO_PASID) return EOPNOTSUPP;
    const item = this.#reach(endpoint);
    if (item < 0) return -item;
    const width = this.#options.bypassAddressWidth ?? 2;
    this.#replace(endpoint, item, TYPE_PASS_THROUGH, 0, width, this.#bypassId);
    return OK;
  }

  detach(endpoint: number, pasid: number = NO_PASID): void {
    const item = this.#find(endpoint);
    if (item !== NONE && pasid === NO_PASID) this.#remove(endpoint, item);
  }

  walk(
    endpoint: number,
    page: number,
    access: number,
    result: WalkResult,
    pasid: number = NO_PASID,
  ): boolean {
    if (this.#walker !== null) return this.#walker.walk(endpoint, page, access, result, pasid);
    result.clear();
    return result.fail(ROOT_NOT_PRESENT, 1);
  }

  /** As {@linkcode walk}: legacy-mode hardware writes nothing. */
  access(
    endpoint: number,
    page: number,
    access: number,
    result: WalkResult,
    pasid: number = NO_PASID,
  ): boolean {
    return this.walk(endpoint, page, access, result, pasid);
  }

  /** `rtaddr`: RTADDR_REG with translation table mode 00; 0 as long as nothing was attached. */
  registers(): Readonly<Record<string, bigint>> {
    const frame = this.#root === NONE ? 0 : this.#memory.baseFrame + this.#root;
    return { rtaddr: byteAddress(frame) };
  }

  destroy(): void {
    if (this.#root !== NONE) {
      const words = this.#memory.words;
      for (let bus = 0; bus < BUSES; bus++) {
        const item = (this.#root << PAGE_WORDS_SHIFT) + bus * 4;
        if ((words[item] & PRESENT) === 0) continue;
        this.gather.addBlock(pageOf(this.#memory, words[item], words[item + 1]), 0, false);
      }
      this.gather.addBlock(this.#root, 0, false);
      this.gather.everyDevice = true;
      this.#root = NONE;
      this.#walker = null;
      this.#tablePages = 0;
    }
    this.gather.flush();
  }

  /** Word index of the endpoint's context entry, or -1 if its bus has no table. */
  #find(endpoint: number): number {
    if (this.#root === NONE || !(endpoint >= 0 && endpoint <= this.lastEndpoint)) return NONE;
    const words = this.#memory.words;
    const root = (this.#root << PAGE_WORDS_SHIFT) + (endpoint >> 8) * 4;
    if ((words[root] & PRESENT) === 0) return NONE;
    const table = pageOf(this.#memory, words[root], words[root + 1]);
    return (table << PAGE_WORDS_SHIFT) + (endpoint & 0xff) * 4;
  }

  /** As {@linkcode #find}, making the tables that are missing; a negative errno if that fails. */
  #reach(endpoint: number): number {
    if (!(Number.isInteger(endpoint) && endpoint >= 0 && endpoint <= this.lastEndpoint)) {
      return -EINVAL;
    }
    const memory = this.#memory;
    if (this.#root === NONE) {
      const root = memory.allocate(0);
      if (root === NONE) return -ENOMEM;
      this.#root = root;
      this.#tablePages++;
      this.#walker = new VtdLegacyWalker(memory, memory.baseFrame + root, this.#options);
    }
    const found = this.#find(endpoint);
    if (found !== NONE) return found;
    const table = memory.allocate(0);
    if (table === NONE) return -ENOMEM;
    this.#tablePages++;
    const frame = memory.baseFrame + table;
    const item = (this.#root << PAGE_WORDS_SHIFT) + (endpoint >> 8) * 4;
    store64(memory.words, item, addressLow(frame) | PRESENT, addressHigh(frame));
    return (table << PAGE_WORDS_SHIFT) + (endpoint & 0xff) * 4;
  }

  #replace(
    endpoint: number,
    item: number,
    type: number,
    frame: number,
    width: number,
    id: number,
  ): void {
    const words = this.#memory.words;
    if ((words[item] & PRESENT) !== 0) {
      this.#remove(endpoint, item);
      this.gather.flush();
    } else if (this.gather.recordsMaps) {
      this.gather.addDevice(DEVICE_ENTRY, endpoint, NO_PASID, NONE);
    }
    store64(words, item + 2, width | (id << 8), 0);
    store64(words, item, addressLow(frame) | type | PRESENT, addressHigh(frame));
  }

  #remove(endpoint: number, item: number): void {
    const words = this.#memory.words;
    if ((words[item] & PRESENT) === 0) return;
    const id = (words[item + 2] >>> 8) & 0xffff;
    clear64(words, item);
    clear64(words, item + 2);
    this.gather.addDevice(DEVICE_ENTRY, endpoint, NO_PASID, id);
    this.#ids.release(id);
  }
}
