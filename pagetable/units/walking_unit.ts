/**
 * The part of a unit that reads, for the AMD, SMMUv3 and scalable VT-d units: they walk their own tables with the walker
 * of their hardware. `VtdLegacyUnit` has its own: legacy-mode hardware records no accesses.
 *
 * @module
 */
import { NO_PASID } from "../invalidation.ts";
import type { TableMemory, TableWriter } from "../table_memory.ts";
import type { EndpointWalker } from "../walk/endpoint_walker.ts";
import type { WalkResult } from "../walk/walk_result.ts";

/** A walker that can set accessed and dirty bits. */
export interface RecordingWalker extends EndpointWalker {
  /** Where marks are written; null to leave the tables as they are. */
  recorder: TableWriter | null;
}

/** Walks the tables of a unit, once it has some. */
export abstract class WalkingUnit {
  /** Reads the unit's tables; null as long as nothing was attached. */
  protected walker: RecordingWalker | null = null;
  readonly #memory: TableMemory;
  readonly #missingFault: number;
  readonly #missingCode: number;

  /**
   * A unit without tables.
   *
   * @param missingFault fault of every access while there are none, with the hardware's code for it.
   */
  protected constructor(memory: TableMemory, missingFault: number, missingCode: number) {
    this.#memory = memory;
    this.#missingFault = missingFault;
    this.#missingCode = missingCode;
  }

  /** See `TranslationUnit.walk`. */
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

  /** See `TranslationUnit.access`. */
  access(
    endpoint: number,
    page: number,
    access: number,
    result: WalkResult,
    pasid: number = NO_PASID,
  ): boolean {
    const walker = this.walker;
    if (walker === null) return this.walk(endpoint, page, access, result, pasid);
    walker.recorder = this.#memory;
    const ok = walker.walk(endpoint, page, access, result, pasid);
    walker.recorder = null;
    return ok;
  }
}
