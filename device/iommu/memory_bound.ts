/**
 * The most memory that a guest can make the process use.
 *
 * Three limits bound it: domains, mappings, and the memory of tables. What a domain and a mapping may cost besides their
 * tables is set here, and a test checks that the engine keeps to it.
 */

/**
 * Bytes that a domain may cost: its address space and page table objects, and the first arrays of each. Its tables are
 * in table memory.
 */
export const DOMAIN_BYTES = 32 * 1024;
/**
 * Bytes that a mapping may cost: its area, and the holders of its pages. Both are kept in arrays that grow by being
 * copied, so for a moment there are two of them.
 */
export const MAPPING_BYTES = 192;
/** Bytes that it may cost more where tables hold host frames: where they are read back from has to be found. */
export const HOST_MAPPING_BYTES = 128;

/** The limits of a device. */
export interface MemoryLimits {
  /** How many domains there may be. */
  readonly maxDomains: number;
  /** How many mappings there may be over all domains. */
  readonly maxMappings: number;
  /** Bytes of table memory. */
  readonly maxTableMemory: number;
  /** What tells host frames, where tables hold those. */
  readonly hostMemory?: unknown;
}

/** The most bytes that a guest can make a device with these limits use. */
export function memoryBound(limits: MemoryLimits): number {
  const { maxDomains, maxMappings, maxTableMemory, hostMemory } = limits;
  const mappingBytes = MAPPING_BYTES + (hostMemory === undefined ? 0 : HOST_MAPPING_BYTES);
  return maxDomains * DOMAIN_BYTES + maxMappings * mappingBytes + maxTableMemory;
}
