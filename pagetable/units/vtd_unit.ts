/**
 * The part that both modes of VT-d share: the root table and the context tables (VT-d §9.1 to §9.4).
 *
 * The root table is made with the first attachment, a context table with the first one of its endpoints. In legacy
 * mode a bus has one context table, and a root entry a second half that is reserved; in scalable mode it has two.
 */
import { byteAddress } from "../address.ts";
import type { TableMemory } from "../table_memory.ts";
import { ROOT_NOT_PRESENT } from "../walk/fault.ts";
import type { RecordingWalker } from "../walk/endpoint_walker.ts";
import type { VtdCapabilities } from "../walk/vtd_capabilities.ts";
import { type DeviceTableForm, DeviceTables } from "./device_tables.ts";
import { DomainIds } from "./domain_ids.ts";
import { UnitBase } from "./unit_base.ts";

/** The present bit, in the low half of every entry. */
export const PRESENT = 1;
/** Domain id of endpoints in bypass; not one that `attach` may be given. */
export const BYPASS_ID = 0xffff;

const NONE = -1;
const LAST_SOURCE_ID = 0xffff;

/** Options of a VT-d unit; scalable mode has them all. */
export interface VtdUnitOptions extends VtdCapabilities {
  /** Bits of PASIDs in scalable mode, 13 to 20; default 15, which makes the directory one page. */
  readonly pasidBits?: number;
  /** Largest address-width code for pass-through entries, 1 to 3; default 2 (48 bits). */
  readonly bypassAddressWidth?: number;
}

/** What the modes differ in. */
export interface VtdMode {
  /** TTM in RTADDR_REG: the translation table mode, in place. */
  readonly registerBits: bigint;
  /** The hardware's code for a root entry that is not present. */
  readonly rootNotPresent: number;
  /** Form of root table and context tables. */
  readonly contexts: DeviceTableForm;
}

/** Root table and context tables of one VT-d unit. */
export abstract class VtdUnit extends UnitBase {
  /** Which hardware. */
  readonly family = "vtd";

  /** The options. */
  protected readonly options: VtdUnitOptions;
  /** Domain ids of page tables. */
  protected readonly ids: DomainIds = new DomainIds(1, 0xfffe);
  /** Address-width code of pass-through entries. */
  protected readonly bypassWidth: number;

  readonly #registerBits: bigint;
  readonly #contexts: DeviceTables;
  #root = NONE;

  /** Makes a unit whose tables will be in `memory`; takes none yet. */
  protected constructor(memory: TableMemory, options: VtdUnitOptions, mode: VtdMode) {
    super(memory, LAST_SOURCE_ID, ROOT_NOT_PRESENT, mode.rootNotPresent);
    this.options = options;
    this.bypassWidth = options.bypassAddressWidth ?? 2;
    this.#registerBits = mode.registerBits;
    this.#contexts = new DeviceTables(memory, this.gather, mode.contexts);
  }

  /** Pages of table memory that the device tables take. */
  get tablePages(): number {
    return this.#contexts.tablePages;
  }

  /** `rtaddr`: RTADDR_REG; 0 as long as nothing was attached. */
  registers(): Readonly<Record<string, bigint>> {
    if (this.#root === NONE) return { rtaddr: 0n };
    return { rtaddr: byteAddress(this.memory.baseFrame + this.#root) | this.#registerBits };
  }

  destroy(): void {
    if (this.#root !== NONE) {
      this.#contexts.free(this.#root);
      this.gather.everyDevice = true;
      this.#root = NONE;
      this.walker = null;
    }
    this.gather.flush();
  }

  /** Makes the walker of the tables behind a root table. */
  protected abstract walkerOf(rootFrame: number): RecordingWalker;

  /** The place of an endpoint's context entry; -1 if it has none. */
  protected findContext(endpoint: number): number {
    if (this.#root === NONE || !this.isEndpoint(endpoint)) return NONE;
    return this.#contexts.find(this.#root, endpoint);
  }

  /** As {@linkcode findContext}, making the tables that are missing. @returns -1 without memory. */
  protected reachContext(endpoint: number): number {
    if (this.#root === NONE) {
      const root = this.#contexts.make();
      if (root === NONE) return NONE;
      this.#root = root;
      this.walker = this.walkerOf(this.memory.baseFrame + root);
    }
    return this.#contexts.reach(this.#root, endpoint);
  }
}
