/** Walks as hardware makes them: they begin with the id of an endpoint. */
import type { TableWriter } from "../table_memory.ts";
import type { WalkResult } from "./walk_result.ts";

/** Walks device tables and page tables of one IOMMU. */
export interface EndpointWalker {
  /**
   * Translates one access.
   *
   * @param endpoint source id or StreamID.
   * @param page input page.
   * @param access READ or WRITE, or 0 to find what is mapped without asking for a permission.
   * @param result filled with what was found.
   * @param pasid PASID or SubstreamID of the request, or `NO_PASID`.
   * @returns whether the access is translated (or passes), as `result.ok`.
   */
  walk(
    endpoint: number,
    page: number,
    access: number,
    result: WalkResult,
    pasid: number,
  ): boolean;
}

/** A walker that can set accessed and dirty bits, as hardware sets them. */
export interface RecordingWalker extends EndpointWalker {
  /** Where the bits are set; null for walks that only look. Ignored where the hardware sets none. */
  recorder: TableWriter | null;
}
