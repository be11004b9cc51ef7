/** The part that all units share: which endpoints there are, the gather, and walking the unit's own tables. */
import { InvalidationGather, NO_PASID } from "../invalidation.ts";
import type { TableMemory } from "../table_memory.ts";
import type { RecordingWalker } from "../walk/endpoint_walker.ts";
import type { WalkResult } from "../walk/walk_result.ts";

/** A unit without tables: every access faults. */
export abstract class UnitBase {
  /** Largest endpoint id, inclusive. */
  readonly lastEndpoint: number;
  /** Device-table changes since the last flush. */
  readonly gather: InvalidationGather;

  /** Memory that the device tables are in. */
  protected readonly memory: TableMemory;
  /** Reads the unit's tables; null as long as nothing was attached. */
  protected walker: RecordingWalker | null = null;

  readonly #missingFault: number;
  readonly #missingCode: number;

  /**
   * Makes a unit of endpoints 0 to `lastEndpoint`, whose tables will be in `memory`; takes none yet.
   *
   * @param missingFault fault of every access while there are no tables, with the hardware's code for it.
   */
  protected constructor(
    memory: TableMemory,
    lastEndpoint: number,
    missingFault: number,
    missingCode: number,
  ) {
    this.memory = memory;
    this.lastEndpoint = lastEndpoint;
    this.gather = new InvalidationGather(memory);
    this.#missingFault = missingFault;
    this.#missingCode = missingCode;
  }

  walk(
    endpoint: number,
    page: number,
    access: number,
    result: WalkResult,
    pasid: number = NO_PASID,
  ): boolean {
    if (this.walker !== null) return this.walker.walk(endpoint, page, access, result, pasid);
    result.clear();
    return result.fail(this.#missingFault, this.#missingCode);
  }

  access(
    endpoint: number,
    page: number,
    access: number,
    result: WalkResult,
    pasid: number = NO_PASID,
  ): boolean {
    const walker = this.walker;
    if (walker === null) return this.walk(endpoint, page, access, result, pasid);
    walker.recorder = this.memory;
    const ok = walker.walk(endpoint, page, access, result, pasid);
    walker.recorder = null;
    return ok;
  }

  /** Whether an endpoint id is one that the tables can have an entry for. */
  protected isEndpoint(endpoint: number): boolean {
    return Number.isInteger(endpoint) && endpoint >= 0 && endpoint <= this.lastEndpoint;
  }
}
