/**
 * SMMUv3 device tables: a linear or two-level stream table, and per stream a linear or two-level table
 * of context descriptors (SMMU §3.3, §5.1 to §5.4).
 *
 * A stream's requests without SubstreamID use CD 0, so explicit PASIDs start at 1 and need
 * `substreamBits`. STEs and CDs are changed by `live_update.ts`, and the gather is flushed between steps. With
 * two stages, SMMUs read CDs and stage-1 tables through stage 2: the caller must map their memory there,
 * each page to itself.
 */
import { EINVAL, ENOMEM, EOPNOTSUPP, type Errno, OK } from "../errno.ts";
import { checkOption } from "../format.ts";
import type { HardwareTable } from "../builder/hardware_table.ts";
import { DEVICE_ENTRY, InvalidationGather, NO_PASID, PASID_ENTRY } from "../invalidation.ts";
import type { TableMemory } from "../table_memory.ts";
import { ROOT_NOT_PRESENT } from "../walk/fault.ts";
import { type SmmuCapabilities, SmmuWalker } from "../walk/smmuv3.ts";
import { DomainIds } from "./domain_ids.ts";
import { type LiveEntry, type LiveWords, liveWords, updateLive } from "./live_update.ts";
import { ContextTables } from "./smmuv3_contexts.ts";
import {
  bypassSte,
  CD_ENTRY,
  contextDescriptor,
  invalidEntry,
  stageSte,
  STE_ENTRY,
} from "./smmuv3_entries.ts";
import { StreamTable } from "./smmuv3_stream_table.ts";
import type { TranslationUnit } from "./unit.ts";
import { UnitBase } from "./unit_base.ts";

const NONE = -1;
/** Most bits of StreamIDs in a linear stream table, which then has 64 MiB. */
const LINEAR_BITS = 20;

/** Options of an SMMUv3 unit: its hardware and the form of its tables. */
export interface SmmuUnitOptions {
  /** Bits of StreamIDs, up to 32, with a linear stream table 20; default 16, a PCI segment. */
  readonly streamBits?: number;
  /** Form of the stream table; default two-level with 2^8 STEs a table. */
  readonly streamTable?: "linear" | "2-level";
  /** Bits of PASIDs (S1CDMax), up to 20; default 0: none. Above 6 the CD table has two levels. */
  readonly substreamBits?: number;
  /** Memory for CD tables; default that of the stream table. With two stages, what stage 2 maps to itself. */
  readonly contextMemory?: TableMemory;
  /** Capabilities of the hardware that the walker stands for. */
  readonly capabilities?: SmmuCapabilities;
}

/** What a stream with context descriptors owns. */
interface Stream {
  /** First page of its CD table, or -1. */
  readonly contexts: number;
  /** The second stage, or null. */
  readonly second: HardwareTable | null;
  /** VMID, or 0. */
  readonly vmid: number;
  /** ASID by SubstreamID, 0 standing for requests without. */
  readonly asids: Map<number, number>;
}

/** Device tables of one SMMUv3. */
export class SmmuUnit extends UnitBase implements TranslationUnit {
  /** Which hardware. */
  readonly family = "smmuv3";

  readonly #contextGather: InvalidationGather;
  readonly #options: SmmuUnitOptions;
  readonly #substreamBits: number;
  readonly #asids = new DomainIds(1, 0xffff);
  readonly #vmids = new DomainIds(1, 0xffff);
  readonly #streams = new Map<number, Stream>();
  readonly #ste64: LiveWords;
  readonly #cd64: LiveWords;
  readonly #table: StreamTable;
  readonly #contexts: ContextTables;

  /** Makes a unit whose tables will be in `memory`; takes none yet. */
  constructor(memory: TableMemory, options: SmmuUnitOptions = {}) {
    const twoLevel = (options.streamTable ?? "2-level") === "2-level";
    const mostBits = twoLevel ? 32 : LINEAR_BITS;
    const streamBits = checkOption("StreamID bits", options.streamBits ?? 16, 1, mostBits);
    super(memory, 2 ** streamBits - 1, ROOT_NOT_PRESENT, 0x02);
    const contextMemory = options.contextMemory ?? memory;
    this.#options = options;
    this.#substreamBits = checkOption("SubstreamID bits", options.substreamBits ?? 0, 0, 20);
    this.#contextGather = contextMemory === memory
      ? this.gather
      : new InvalidationGather(contextMemory);
    this.#table = new StreamTable(memory, this.gather, streamBits, twoLevel);
    this.#contexts = new ContextTables(contextMemory, this.#contextGather, this.#substreamBits);
    this.#ste64 = liveWords(memory);
    this.#cd64 = liveWords(contextMemory);
  }

  /** Pages of table memory that the device tables take. */
  get tablePages(): number {
    return this.#table.tablePages + this.#contexts.tablePages;
  }

  /** `domainId` is the ASID of stage 1, the VMID of stage 2. */
  attach(
    endpoint: number,
    table: HardwareTable,
    domainId?: number,
    pasid: number = NO_PASID,
  ): Errno {
    if (!this.isEndpoint(endpoint)) return EINVAL;
    if (table.format === "smmuv3-s2") {
      if (pasid !== NO_PASID) return EOPNOTSUPP;
      return this.#attachSecond(endpoint, table, domainId);
    }
    if (table.format !== "smmuv3-s1") return EINVAL;
    const stream = this.#streams.get(endpoint);
    // A new context descriptor in a stream with stage 1 leaves its other ones as they are.
    if (stream !== undefined && stream.contexts !== NONE) {
      if (stream.second === null || pasid !== NO_PASID) {
        return this.#setContext(endpoint, stream, table, domainId, pasid);
      }
    }
    return this.#attachFirst(endpoint, table, null, domainId, pasid);
  }

  /** `domainId` is the VMID, the unit picks the ASID. */
  attachNested(
    endpoint: number,
    first: HardwareTable,
    second: HardwareTable,
    domainId?: number,
    pasid: number = NO_PASID,
  ): Errno {
    if (!this.isEndpoint(endpoint)) return EINVAL;
    if (first.format !== "smmuv3-s1" || second.format !== "smmuv3-s2") return EINVAL;
    const stream = this.#streams.get(endpoint);
    if (stream !== undefined && stream.second === second) {
      if (domainId !== undefined && domainId !== stream.vmid) return EINVAL;
      return this.#setContext(endpoint, stream, first, undefined, pasid);
    }
    const taken = this.#vmids.take(second, domainId);
    if (taken !== OK) return taken;
    const vmid = this.#vmids.idOf(second);
    const errno = this.#attachFirst(endpoint, first, { second, vmid }, undefined, pasid);
    if (errno !== OK) this.#vmids.release(vmid);
    return errno;
  }

  /** A stream passes as a whole. */
  bypass(endpoint: number, pasid: number = NO_PASID): Errno {
    if (!this.isEndpoint(endpoint)) return EINVAL;
    if (pasid !== NO_PASID) return EOPNOTSUPP;
    const item = this.#reach(endpoint);
    if (item === NONE) return ENOMEM;
    const stream = { contexts: NONE, second: null, vmid: 0, asids: new Map() };
    this.#replace(endpoint, item, bypassSte(), stream);
    return OK;
  }

  detach(endpoint: number, pasid: number = NO_PASID): void {
    const item = this.isEndpoint(endpoint) ? this.#table.find(endpoint) : NONE;
    if (item === NONE) return;
    const stream = this.#streams.get(endpoint);
    if (pasid === NO_PASID) {
      this.#writeSte(endpoint, item, invalidEntry());
      this.#forget(endpoint, stream);
      return;
    }
    const asid = stream?.asids.get(pasid);
    if (stream === undefined || asid === undefined) return;
    this.#writeContext(endpoint, stream, pasid, invalidEntry());
    stream.asids.delete(pasid);
    this.#asids.release(asid);
  }

  /** `strtab_base` and `strtab_cfg`: SMMU_STRTAB_BASE with RA, and SMMU_STRTAB_BASE_CFG. */
  registers(): Readonly<Record<string, bigint>> {
    return { strtab_base: this.#table.base, strtab_cfg: this.#table.config };
  }

  destroy(): void {
    for (const endpoint of [...this.#streams.keys()]) this.detach(endpoint);
    this.#table.destroy();
    this.walker = null;
    this.gather.flush();
    this.#contextGather.flush();
  }

  #attachSecond(endpoint: number, second: HardwareTable, domainId: number | undefined): Errno {
    const errno = this.#vmids.take(second, domainId);
    if (errno !== OK) return errno;
    const vmid = this.#vmids.idOf(second);
    const item = this.#reach(endpoint);
    if (item === NONE) {
      this.#vmids.release(vmid);
      return ENOMEM;
    }
    const stream = { contexts: NONE, second, vmid, asids: new Map() };
    this.#replace(endpoint, item, stageSte(null, second, vmid), stream);
    return OK;
  }

  #attachFirst(
    endpoint: number,
    table: HardwareTable,
    below: { readonly second: HardwareTable; readonly vmid: number } | null,
    domainId: number | undefined,
    pasid: number,
  ): Errno {
    const item = this.#reach(endpoint);
    if (item === NONE) return ENOMEM;
    const contexts = this.#contexts.make();
    if (contexts === NONE) return ENOMEM;
    const stream: Stream = {
      contexts,
      second: below?.second ?? null,
      vmid: below?.vmid ?? 0,
      asids: new Map(),
    };
    const errno = this.#setContext(endpoint, stream, table, domainId, pasid);
    if (errno !== OK) {
      this.#freeContexts(stream);
      return errno;
    }
    const ste = stageSte(this.#contexts.place(contexts), stream.second, stream.vmid);
    this.#replace(endpoint, item, ste, stream);
    return OK;
  }

  /** Gives a stream another STE, and frees what it owned before. */
  #replace(endpoint: number, item: number, ste: BigUint64Array, stream: Stream): void {
    const before = this.#streams.get(endpoint);
    this.#writeSte(endpoint, item, ste);
    this.#forget(endpoint, before);
    this.#streams.set(endpoint, stream);
  }

  #setContext(
    endpoint: number,
    stream: Stream,
    table: HardwareTable,
    domainId: number | undefined,
    pasid: number,
  ): Errno {
    const substream = pasid === NO_PASID ? 0 : pasid;
    if (!Number.isInteger(substream) || pasid === 0 || substream >= 2 ** this.#substreamBits) {
      return EINVAL;
    }
    const errno = this.#asids.take(table, domainId);
    if (errno !== OK) return errno;
    const asid = this.#asids.idOf(table);
    if (!this.#contexts.makeFor(substream, stream.contexts, endpoint, this.gather)) {
      this.#asids.release(asid);
      return ENOMEM;
    }
    this.#writeContext(endpoint, stream, substream, contextDescriptor(table, asid));
    const before = stream.asids.get(substream);
    if (before !== undefined) this.#asids.release(before);
    stream.asids.set(substream, asid);
    return OK;
  }

  #writeSte(endpoint: number, item: number, ste: BigUint64Array): void {
    const at = item >> 1;
    const vmid = Number(this.#ste64[at + 2] & 0xffffn);
    this.#update(this.#ste64, at, ste, STE_ENTRY, DEVICE_ENTRY, endpoint, NO_PASID, vmid, 0);
  }

  #writeContext(
    endpoint: number,
    stream: Stream,
    substream: number,
    cd: BigUint64Array,
  ): void {
    const item = this.#contexts.find(stream.contexts, substream);
    if (item === NONE) return;
    const at = item >> 1;
    const asid = Number(this.#cd64[at] >> 48n);
    const vmid = stream.vmid;
    this.#update(this.#cd64, at, cd, CD_ENTRY, PASID_ENTRY, endpoint, substream, asid, vmid);
  }

  #update(
    words: LiveWords,
    at: number,
    target: BigUint64Array,
    entry: LiveEntry,
    kind: number,
    endpoint: number,
    pasid: number,
    domainId: number,
    stageTwoId: number,
  ): void {
    const sync = (): void => {
      this.gather.addDevice(kind, endpoint, pasid, domainId, stageTwoId);
      this.gather.flush();
    };
    const store = (index: number, value: bigint): void => {
      words[index] = value;
    };
    updateLive(words, at, target, entry, sync, store);
  }

  /**
   * Frees what a replaced or detached stream owned. Invalidating the STE removes no translation from the
   * TLBs (SMMU §4.3.1), so its ASIDs are added to the gather: they may become another table's.
   */
  #forget(endpoint: number, stream: Stream | undefined): void {
    if (stream === undefined) return;
    this.#streams.delete(endpoint);
    if (stream.vmid !== 0) this.#vmids.release(stream.vmid);
    for (const [substream, asid] of stream.asids) {
      this.gather.addDevice(PASID_ENTRY, endpoint, substream, asid, stream.vmid);
      this.#asids.release(asid);
    }
    if (stream.contexts !== NONE) this.#freeContexts(stream);
  }

  #freeContexts(stream: Stream): void {
    this.#contexts.free(stream.contexts);
    if (this.#contextGather !== this.gather) this.#contextGather.flush();
  }

  /** The place of an STE, its table and the walker made where they are missing; -1 without memory. */
  #reach(endpoint: number): number {
    const item = this.#table.reach(endpoint);
    if (this.walker === null && this.#table.made) {
      const registers = { strtabBase: this.#table.base, strtabConfig: this.#table.config };
      this.walker = new SmmuWalker(this.memory, registers, this.#options.capabilities ?? {});
    }
    return item;
  }
}
