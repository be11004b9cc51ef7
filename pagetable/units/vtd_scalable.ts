/**
 * VT-d scalable-mode device tables: root, context, PASID directory and PASID tables
 * (VT-d §9.2, §9.4 to §9.6).
 *
 * An endpoint's requests without PASID use PASID 0, so explicit PASIDs start at 1. Tables are made
 * when they are first needed; an endpoint's directory goes with its last PASID entry. A present entry
 * is made not present and hardware is told (the gather is flushed) before it gets its new value,
 * present bit last (§6.5.3.3).
 *
 * @module
 */
import { EINVAL, ENOMEM, type Errno, OK } from "../errno.ts";
import { checkOption } from "../format.ts";
import type { HardwareTable } from "../builder/hardware_table.ts";
import {
  DEVICE_ENTRY,
  InvalidationGather,
  NO_PASID,
  PASID_DIRECTORY,
  PASID_ENTRY,
} from "../invalidation.ts";
import { PAGE_WORDS_SHIFT, type TableMemory } from "../table_memory.ts";
import { ROOT_NOT_PRESENT } from "../walk/fault.ts";
import { VtdScalableWalker } from "../walk/vtd_scalable.ts";
import { DomainIds } from "./domain_ids.ts";
import { clear64, pageOf, store64 } from "./entry_writer.ts";
import type { TranslationUnit } from "./unit.ts";
import { WalkingUnit } from "./walking_unit.ts";
import type { VtdUnitOptions } from "./vtd_options.ts";
import { addressHigh, addressLow, byteAddress } from "../address.ts";

const PRESENT = 1;
const PASID_ENABLE = 1 << 3;
const SECOND_STAGE_AD = 1 << 9;
const TYPE_FIRST = 1 << 6;
const TYPE_SECOND = 2 << 6;
const TYPE_NESTED = 3 << 6;
const TYPE_PASS_THROUGH = 4 << 6;
/** Translation table mode 01 in RTADDR_REG. */
const SCALABLE = 1n << 10n;
const NONE = -1;

/** Scalable-mode device tables of one VT-d unit. */
export class VtdScalableUnit extends WalkingUnit implements TranslationUnit {
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
  readonly #pasidBits: number;
  readonly #directoryOrder: number;
  /** PASIDs with an entry, by endpoint; PASID 0 stands for requests without. */
  readonly #pasids = new Map<number, Set<number>>();
  #root = NONE;
  #tablePages = 0;

  /** Makes a unit whose tables will be in `memory`; takes none yet. */
  constructor(memory: TableMemory, options: VtdUnitOptions = {}) {
    super(memory, ROOT_NOT_PRESENT, 0x39);
    this.#memory = memory;
    this.#options = options;
    this.#bypassId = options.bypassDomainId ?? 0xffff;
    this.#pasidBits = checkOption("PASID bits", options.pasidBits ?? 15, 13, 20);
    this.#directoryOrder = Math.max(0, this.#pasidBits - 15);
    this.#ids = new DomainIds(1, 0xfffe);
    this.gather = new InvalidationGather(memory);
  }

  /** Pages of table memory that the device tables take. */
  get tablePages(): number {
    return this.#tablePages;
  }

  /** See {@linkcode TranslationUnit.attach}; takes `vtd-ss` and `vtd-fs` tables. */
  attach(
    endpoint: number,
    table: HardwareTable,
    domainId?: number,
    pasid: number = NO_PASID,
  ): Errno {
    if (table.format === "vtd-ss") {
      return this.#attach(endpoint, null, table, table, domainId, pasid);
    }
    if (table.format !== "vtd-fs") return EINVAL;
    return this.#attach(endpoint, table, null, table, domainId, pasid);
  }

  /** See {@linkcode TranslationUnit.attachNested}; the domain id is that of the second stage. */
  attachNested(
    endpoint: number,
    first: HardwareTable,
    second: HardwareTable,
    domainId?: number,
    pasid: number = NO_PASID,
  ): Errno {
    if (first.format !== "vtd-fs" || second.format !== "vtd-ss") return EINVAL;
    return this.#attach(endpoint, first, second, second, domainId, pasid);
  }

  bypass(endpoint: number, pasid: number = NO_PASID): Errno {
    const width = this.#options.bypassAddressWidth ?? 2;
    return this.#install(
      endpoint,
      pasid,
      TYPE_PASS_THROUGH | width << 2,
      NONE,
      0,
      NONE,
      this.#bypassId,
    );
  }

  detach(endpoint: number, pasid: number = NO_PASID): void {
    const number = pasid === NO_PASID ? 0 : pasid;
    const pasids = this.#pasids.get(endpoint);
    if (pasids === undefined || !pasids.has(number)) return;
    const context = this.#context(endpoint);
    const item = this.#pasidItem(context, number);
    this.#remove(endpoint, number, item);
    pasids.delete(number);
    if (pasids.size === 0) this.#freeDirectory(endpoint, context);
  }

  /** `rtaddr`: RTADDR_REG with translation table mode 01; 0 as long as nothing was attached. */
  registers(): Readonly<Record<string, bigint>> {
    if (this.#root === NONE) return { rtaddr: 0n };
    return { rtaddr: byteAddress(this.#memory.baseFrame + this.#root) | SCALABLE };
  }

  destroy(): void {
    for (const [endpoint, pasids] of this.#pasids) {
      for (const pasid of [...pasids]) this.detach(endpoint, pasid === 0 ? NO_PASID : pasid);
    }
    if (this.#root !== NONE) {
      const words = this.#memory.words;
      const root = this.#root << PAGE_WORDS_SHIFT;
      for (let item = root; item < root + 1024; item += 2) {
        if ((words[item] & PRESENT) === 0) continue;
        this.gather.addBlock(pageOf(this.#memory, words[item], words[item + 1]), 0, false);
      }
      this.gather.addBlock(this.#root, 0, false);
      this.gather.everyDevice = true;
      this.#root = NONE;
      this.walker = null;
      this.#tablePages = 0;
    }
    this.gather.flush();
  }

  #attach(
    endpoint: number,
    first: HardwareTable | null,
    second: HardwareTable | null,
    tagged: HardwareTable,
    domainId: number | undefined,
    pasid: number,
  ): Errno {
    const id = this.#ids.take(tagged, domainId);
    if (id < 0) return id === -2 ? ENOMEM : EINVAL;
    let low = first === null ? TYPE_SECOND : second === null ? TYPE_FIRST : TYPE_NESTED;
    const levels = (second ?? first ?? tagged).description.levels;
    low |= (levels - 2) << 2;
    if (second !== null && second.tracksDirty) low |= SECOND_STAGE_AD;
    const mode = first === null ? 0 : (first.description.levels - 4) << 2;
    const errno = this.#install(
      endpoint,
      pasid,
      low,
      second?.rootFrame ?? NONE,
      mode,
      first?.rootFrame ?? NONE,
      id,
    );
    if (errno !== OK) this.#ids.release(id);
    return errno;
  }

  #install(
    endpoint: number,
    pasid: number,
    low: number,
    secondFrame: number,
    mode: number,
    firstFrame: number,
    id: number,
  ): Errno {
    const number = pasid === NO_PASID ? 0 : pasid;
    if (!Number.isInteger(endpoint) || endpoint < 0 || endpoint > this.lastEndpoint) return EINVAL;
    if (!Number.isInteger(number) || pasid === 0 || number < 0 || number >= 2 ** this.#pasidBits) {
      return EINVAL;
    }
    const item = this.#reach(endpoint, number);
    if (item < 0) return -item;
    const words = this.#memory.words;
    if ((words[item] & PRESENT) !== 0) {
      this.#remove(endpoint, number, item);
      this.gather.flush();
    } else if (this.gather.recordsMaps) {
      this.gather.addDevice(PASID_ENTRY, endpoint, number, NONE);
    }
    store64(words, item + 2, id, 0);
    if (firstFrame !== NONE) {
      store64(words, item + 4, addressLow(firstFrame) | mode, addressHigh(firstFrame));
    }
    const frame = secondFrame === NONE ? 0 : secondFrame;
    store64(words, item, addressLow(frame) | low | PRESENT, addressHigh(frame));
    this.#pasids.get(endpoint)?.add(number);
    return OK;
  }

  #remove(endpoint: number, number: number, item: number): void {
    const words = this.#memory.words;
    const id = words[item + 2] & 0xffff;
    for (let word = 0; word < 16; word += 2) clear64(words, item + word);
    this.gather.addDevice(PASID_ENTRY, endpoint, number, id);
    this.#ids.release(id);
  }

  /** Word index of the endpoint's context entry, or -1. */
  #context(endpoint: number): number {
    if (this.#root === NONE) return NONE;
    const words = this.#memory.words;
    const root = (this.#root << PAGE_WORDS_SHIFT) + (endpoint >> 7) * 2;
    if ((words[root] & PRESENT) === 0) return NONE;
    const table = pageOf(this.#memory, words[root], words[root + 1]);
    return (table << PAGE_WORDS_SHIFT) + (endpoint & 127) * 8;
  }

  /** Word index of a PASID entry below a present context entry, or -1. */
  #pasidItem(context: number, number: number): number {
    const words = this.#memory.words;
    const directory = pageOf(this.#memory, words[context], words[context + 1]);
    const item = (directory << PAGE_WORDS_SHIFT) + (number >> 6) * 2;
    if ((words[item] & PRESENT) === 0) return NONE;
    return (pageOf(this.#memory, words[item], words[item + 1]) << PAGE_WORDS_SHIFT) +
      (number & 63) * 16;
  }

  /** As {@linkcode #pasidItem}, from the root on, making what is missing; a negative errno if that fails. */
  #reach(endpoint: number, number: number): number {
    const memory = this.#memory;
    const words = memory.words;
    if (this.#root === NONE) {
      const root = this.#take(0);
      if (root === NONE) return -ENOMEM;
      this.#root = root;
      this.walker = new VtdScalableWalker(memory, memory.baseFrame + root, this.#options);
    }
    let context = this.#context(endpoint);
    if (context === NONE) {
      const table = this.#take(0);
      if (table === NONE) return -ENOMEM;
      this.#link((this.#root << PAGE_WORDS_SHIFT) + (endpoint >> 7) * 2, table, PRESENT);
      context = this.#context(endpoint);
    }
    if ((words[context] & PRESENT) === 0) {
      const directory = this.#take(this.#directoryOrder);
      const table = directory === NONE ? NONE : this.#take(0);
      if (table === NONE) {
        if (directory !== NONE) this.#drop(directory, this.#directoryOrder);
        return -ENOMEM;
      }
      this.#link((directory << PAGE_WORDS_SHIFT) + (number >> 6) * 2, table, PRESENT);
      const enable = number === 0 ? 0 : PASID_ENABLE;
      this.#link(context, directory, PRESENT | enable | (this.#pasidBits - 13) << 9);
      if (this.gather.recordsMaps) this.gather.addDevice(DEVICE_ENTRY, endpoint, NO_PASID, NONE);
      this.#pasids.set(endpoint, new Set());
      return this.#pasidItem(context, number);
    }
    const item = this.#pasidItem(context, number);
    if (item === NONE) {
      const table = this.#take(0);
      if (table === NONE) return -ENOMEM;
      const directory = pageOf(memory, words[context], words[context + 1]);
      this.#link((directory << PAGE_WORDS_SHIFT) + (number >> 6) * 2, table, PRESENT);
    }
    if (number !== 0 && (words[context] & PASID_ENABLE) === 0) {
      words[context] |= PASID_ENABLE;
      this.gather.addDevice(DEVICE_ENTRY, endpoint, NO_PASID, NONE);
    }
    return this.#pasidItem(context, number);
  }

  #freeDirectory(endpoint: number, context: number): void {
    const words = this.#memory.words;
    const directory = pageOf(this.#memory, words[context], words[context + 1]);
    clear64(words, context);
    this.gather.addDevice(DEVICE_ENTRY, endpoint, NO_PASID, NONE);
    this.gather.addDevice(PASID_DIRECTORY, endpoint, NO_PASID, NONE);
    const start = directory << PAGE_WORDS_SHIFT;
    for (let item = start; item < start + (1024 << this.#directoryOrder); item += 2) {
      if ((words[item] & PRESENT) === 0) continue;
      this.gather.addBlock(pageOf(this.#memory, words[item], words[item + 1]), 0, true);
      this.#tablePages--;
    }
    this.gather.addBlock(directory, this.#directoryOrder, false);
    this.#tablePages -= 1 << this.#directoryOrder;
    this.#pasids.delete(endpoint);
  }

  #link(item: number, page: number, bits: number): void {
    const frame = this.#memory.baseFrame + page;
    store64(this.#memory.words, item, addressLow(frame) | bits, addressHigh(frame));
  }

  #take(order: number): number {
    const page = this.#memory.allocate(order);
    if (page !== NONE) this.#tablePages += 1 << order;
    return page;
  }

  #drop(page: number, order: number): void {
    this.#memory.free(page, order);
    this.#tablePages -= 1 << order;
  }
}
