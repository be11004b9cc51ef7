/**
 * VT-d scalable-mode device tables: root, context, PASID directory and PASID tables
 * (VT-d §9.2, §9.4 to §9.6).
 *
 * An endpoint's requests without PASID use PASID 0, so explicit PASIDs start at 1. Tables are made
 * when they are first needed; an endpoint's directory is freed with its last PASID entry. A present entry
 * is made not present and the gather is flushed before it gets its new value, present bit last (§6.5.3.3).
 */
import { addressHigh, addressLow } from "../address.ts";
import { EINVAL, ENOMEM, type Errno, OK } from "../errno.ts";
import { checkOption } from "../format.ts";
import type { HardwareTable } from "../builder/hardware_table.ts";
import { DEVICE_ENTRY, NO_PASID, PASID_DIRECTORY, PASID_ENTRY } from "../invalidation.ts";
import type { TableMemory } from "../table_memory.ts";
import type { RecordingWalker } from "../walk/endpoint_walker.ts";
import { VtdScalableWalker } from "../walk/vtd_scalable.ts";
import { DeviceTables } from "./device_tables.ts";
import { clear64, pageOf, store64 } from "./entry_writer.ts";
import type { TranslationUnit } from "./unit.ts";
import { BYPASS_ID, PRESENT, type VtdMode, VtdUnit, type VtdUnitOptions } from "./vtd_unit.ts";

const PASID_ENABLE = 1 << 3;
const SECOND_STAGE_AD = 1 << 9;
const TYPE_FIRST = 1 << 6;
const TYPE_SECOND = 2 << 6;
const TYPE_NESTED = 3 << 6;
const TYPE_PASS_THROUGH = 4 << 6;
/** Words of a PASID entry. */
const ENTRY_WORDS = 16;
const NONE = -1;
const SCALABLE: VtdMode = {
  registerBits: 1n << 10n,
  rootNotPresent: 0x39,
  contexts: { firstOrder: 0, split: 7, entryShift: 3, pointerShift: 1, pointerBits: PRESENT },
};

/** Scalable-mode device tables of one VT-d unit. */
export class VtdScalableUnit extends VtdUnit implements TranslationUnit {
  readonly #pasidBits: number;
  /** PASID directories, each with its PASID tables. */
  readonly #directories: DeviceTables;
  /** PASIDs with an entry, by endpoint; PASID 0 stands for requests without. */
  readonly #pasids = new Map<number, Set<number>>();

  /** Makes a unit whose tables will be in `memory`; takes none yet. */
  constructor(memory: TableMemory, options: VtdUnitOptions = {}) {
    super(memory, options, SCALABLE);
    this.#pasidBits = checkOption("PASID bits", options.pasidBits ?? 15, 13, 20);
    this.#directories = new DeviceTables(memory, this.gather, {
      firstOrder: Math.max(0, this.#pasidBits - 15),
      split: 6,
      entryShift: 4,
      pointerShift: 1,
      pointerBits: PRESENT,
    });
  }

  override get tablePages(): number {
    return super.tablePages + this.#directories.tablePages;
  }

  /** Takes `vtd-ss` and `vtd-fs` tables. */
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

  /** The domain id is that of the second stage. */
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
    const low = TYPE_PASS_THROUGH | this.bypassWidth << 2;
    return this.#install(endpoint, pasid, low, NONE, 0, NONE, BYPASS_ID);
  }

  detach(endpoint: number, pasid: number = NO_PASID): void {
    const number = pasid === NO_PASID ? 0 : pasid;
    const pasids = this.#pasids.get(endpoint);
    if (pasids === undefined || !pasids.has(number)) return;
    const context = this.findContext(endpoint);
    this.#remove(endpoint, number, this.#directories.find(this.#directoryOf(context), number));
    pasids.delete(number);
    if (pasids.size === 0) this.#freeDirectory(endpoint, context);
  }

  override destroy(): void {
    for (const [endpoint, pasids] of this.#pasids) {
      for (const pasid of [...pasids]) this.detach(endpoint, pasid === 0 ? NO_PASID : pasid);
    }
    super.destroy();
  }

  protected walkerOf(rootFrame: number): RecordingWalker {
    return new VtdScalableWalker(this.memory, rootFrame, this.options);
  }

  #attach(
    endpoint: number,
    first: HardwareTable | null,
    second: HardwareTable | null,
    tagged: HardwareTable,
    domainId: number | undefined,
    pasid: number,
  ): Errno {
    const taken = this.ids.take(tagged, domainId);
    if (taken !== OK) return taken;
    const id = this.ids.idOf(tagged);
    let low = first === null ? TYPE_SECOND : second === null ? TYPE_FIRST : TYPE_NESTED;
    low |= (tagged.description.levels - 2) << 2;
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
    if (errno !== OK) this.ids.release(id);
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
    if (!this.isEndpoint(endpoint)) return EINVAL;
    if (!Number.isInteger(number) || pasid === 0 || number < 0 || number >= 2 ** this.#pasidBits) {
      return EINVAL;
    }
    const item = this.#reach(endpoint, number);
    if (item === NONE) return ENOMEM;
    const words = this.memory.words;
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
    const words = this.memory.words;
    const id = words[item + 2] & 0xffff;
    for (let word = 0; word < ENTRY_WORDS; word += 2) clear64(words, item + word);
    this.gather.addDevice(PASID_ENTRY, endpoint, number, id);
    this.ids.release(id);
  }

  /** The PASID directory that a context entry leads to. */
  #directoryOf(context: number): number {
    const words = this.memory.words;
    return pageOf(this.memory, words[context], words[context + 1]);
  }

  /** The place of the endpoint's entry for a PASID, the tables made where they are missing; -1 without memory. */
  #reach(endpoint: number, number: number): number {
    const words = this.memory.words;
    const context = this.reachContext(endpoint);
    if (context === NONE) return NONE;
    if ((words[context] & PRESENT) === 0) return this.#reachFirst(endpoint, context, number);
    const item = this.#directories.reach(this.#directoryOf(context), number);
    if (item !== NONE && number !== 0 && (words[context] & PASID_ENABLE) === 0) {
      words[context] |= PASID_ENABLE;
      this.gather.addDevice(DEVICE_ENTRY, endpoint, NO_PASID, NONE);
    }
    return item;
  }

  /** As {@linkcode #reach}, for an endpoint whose context entry is not present. */
  #reachFirst(endpoint: number, context: number, number: number): number {
    const directory = this.#directories.make();
    if (directory === NONE) return NONE;
    const item = this.#directories.reach(directory, number);
    if (item === NONE) {
      this.#directories.unmake(directory);
      return NONE;
    }
    const frame = this.memory.baseFrame + directory;
    const bits = PRESENT | (number === 0 ? 0 : PASID_ENABLE) | (this.#pasidBits - 13) << 9;
    store64(this.memory.words, context, addressLow(frame) | bits, addressHigh(frame));
    if (this.gather.recordsMaps) this.gather.addDevice(DEVICE_ENTRY, endpoint, NO_PASID, NONE);
    this.#pasids.set(endpoint, new Set());
    return item;
  }

  #freeDirectory(endpoint: number, context: number): void {
    const directory = this.#directoryOf(context);
    clear64(this.memory.words, context);
    this.gather.addDevice(DEVICE_ENTRY, endpoint, NO_PASID, NONE);
    this.gather.addDevice(PASID_DIRECTORY, endpoint, NO_PASID, NONE);
    this.#directories.free(directory, true);
    this.#pasids.delete(endpoint);
  }
}
