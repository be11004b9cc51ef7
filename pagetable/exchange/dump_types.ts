/** One entry, or a run of leaves of equal size to consecutive addresses. Addresses are bytes. */
export interface DumpEntry {
  /** Level, as the specification counts. */
  readonly level: number;
  /** Address of the entry, the first of a run. */
  readonly at: string;
  /** Its value. */
  readonly entry: string;
  /** First input address at which something is found behind it. */
  readonly iova: string;
  /** Entries below, if it leads to a table. */
  readonly table?: readonly DumpEntry[];
  /** Leaves in the run, if it is a leaf. */
  readonly count?: number;
  /** Last input address of the run, inclusive. */
  readonly last?: string;
  /** First output address. */
  readonly phys?: string;
  /** Bytes of each leaf. */
  readonly size?: string;
  /** What the whole path permits. */
  readonly prot?: string;
  /** Memory type. */
  readonly type?: string;
  /** Why hardware stops here, if it does. */
  readonly fault?: string;
  /** Input address at which the table that this entry leads to was printed already, at the same level. */
  readonly seen?: string;
}

/** What is behind one endpoint. */
export interface DumpEndpoint {
  /** Source id or StreamID. */
  readonly sid: string;
  /** PASID, for requests that have one. */
  readonly pasid?: number;
  /** Hardware domain id. */
  readonly domain?: number;
  /** Whether its accesses pass. */
  readonly bypass?: boolean;
  /** Why nothing is reached, where the device tables stop hardware. */
  readonly fault?: string;
  /** The entries of the device tables on the way. */
  readonly device: readonly { readonly at: string; readonly entry: string }[];
  /** The entries of the top page table. */
  readonly tables: readonly DumpEntry[];
  /** Input address from which on nothing was printed, because the dump had its most entries. */
  readonly stopped?: string;
}
