/**
 * VT-d legacy-mode device tables: root table and context tables (VT-d §9.1, §9.3).
 *
 * A context entry is written present bit last. A present entry is first made not present, so that
 * hardware sees the old entry, none, or the new one; the gather is flushed in between, because hardware
 * may cache the old one until it is invalidated (§6.5.3.3).
 */
import { addressHigh, addressLow } from "../address.ts";
import { EINVAL, ENOMEM, EOPNOTSUPP, type Errno, OK } from "../errno.ts";
import type { HardwareTable } from "../builder/hardware_table.ts";
import { DEVICE_ENTRY, NO_PASID } from "../invalidation.ts";
import type { TableMemory } from "../table_memory.ts";
import type { RecordingWalker } from "../walk/endpoint_walker.ts";
import { VtdLegacyWalker } from "../walk/vtd_legacy.ts";
import { clear64, store64 } from "./entry_writer.ts";
import type { TranslationUnit } from "./unit.ts";
import { BYPASS_ID, PRESENT, type VtdMode, VtdUnit, type VtdUnitOptions } from "./vtd_unit.ts";

const TYPE_SECOND_STAGE = 0 << 2;
const TYPE_PASS_THROUGH = 2 << 2;
const NONE = -1;
const LEGACY: VtdMode = {
  registerBits: 0n,
  rootNotPresent: 0x1,
  contexts: { firstOrder: 0, split: 8, entryShift: 2, pointerShift: 2, pointerBits: PRESENT },
};

/** Legacy-mode device tables of one VT-d unit. */
export class VtdLegacyUnit extends VtdUnit implements TranslationUnit {
  /** Makes a unit whose tables will be in `memory`; takes none yet. */
  constructor(memory: TableMemory, options: VtdUnitOptions = {}) {
    super(memory, options, LEGACY);
  }

  attach(
    endpoint: number,
    table: HardwareTable,
    domainId?: number,
    pasid: number = NO_PASID,
  ): Errno {
    if (pasid !== NO_PASID) return EOPNOTSUPP;
    if (table.format !== "vtd-ss" || table.tracksDirty || !this.isEndpoint(endpoint)) return EINVAL;
    const errno = this.ids.take(table, domainId);
    if (errno !== OK) return errno;
    const id = this.ids.idOf(table);
    const width = table.description.levels - 2;
    if (this.#replace(endpoint, TYPE_SECOND_STAGE, table.rootFrame, width, id)) return OK;
    this.ids.release(id);
    return ENOMEM;
  }

  /** Legacy mode has one stage. */
  attachNested(): Errno {
    return EOPNOTSUPP;
  }

  bypass(endpoint: number, pasid: number = NO_PASID): Errno {
    if (pasid !== NO_PASID) return EOPNOTSUPP;
    if (!this.isEndpoint(endpoint)) return EINVAL;
    const done = this.#replace(endpoint, TYPE_PASS_THROUGH, 0, this.bypassWidth, BYPASS_ID);
    return done ? OK : ENOMEM;
  }

  detach(endpoint: number, pasid: number = NO_PASID): void {
    const item = this.findContext(endpoint);
    if (item !== NONE && pasid === NO_PASID) this.#remove(endpoint, item);
  }

  protected walkerOf(rootFrame: number): RecordingWalker {
    return new VtdLegacyWalker(this.memory, rootFrame, this.options);
  }

  /** Gives the endpoint's context entry a new value. @returns false, with nothing changed, without memory. */
  #replace(endpoint: number, type: number, frame: number, width: number, id: number): boolean {
    const item = this.reachContext(endpoint);
    if (item === NONE) return false;
    const words = this.memory.words;
    if ((words[item] & PRESENT) !== 0) {
      this.#remove(endpoint, item);
      this.gather.flush();
    } else if (this.gather.recordsMaps) {
      this.gather.addDevice(DEVICE_ENTRY, endpoint, NO_PASID, NONE);
    }
    store64(words, item + 2, width | (id << 8), 0);
    store64(words, item, addressLow(frame) | type | PRESENT, addressHigh(frame));
    return true;
  }

  #remove(endpoint: number, item: number): void {
    const words = this.memory.words;
    if ((words[item] & PRESENT) === 0) return;
    const id = (words[item + 2] >>> 8) & 0xffff;
    clear64(words, item);
    clear64(words, item + 2);
    this.gather.addDevice(DEVICE_ENTRY, endpoint, NO_PASID, id);
    this.ids.release(id);
  }
}
