/**
 * The exchange form: what `build` reads and writes and `walk` reads and answers, as JSON.
 *
 * Numbers are JSON numbers or strings (`"0x…"` or decimal). Addresses are bytes.
 */

/** A number as the exchange form writes it. */
export type JsonNumber = number | string;

/** Consecutive addresses that translate to consecutive addresses. */
export interface JsonMapping {
  /** First input address, a multiple of the granule. */
  readonly iova: JsonNumber;
  /** First output address. */
  readonly phys: JsonNumber;
  /** Bytes. */
  readonly length: JsonNumber;
  /** `r`, `w` or `rw`. */
  readonly prot: string;
  /** Whether the output is device memory. */
  readonly mmio?: boolean;
}

/** One page table, or two when nested. */
export interface JsonDomain {
  /** Hardware domain id: DID, ASID or VMID, DomainID; with nesting that of the second stage. */
  readonly id: JsonNumber;
  /** Mappings of the first or only stage. */
  readonly mappings?: readonly JsonMapping[];
  /** Mappings of the second stage of nested formats; `iova` is an intermediate address. */
  readonly stage2?: readonly JsonMapping[];
}

/** What one endpoint, or one PASID of it, is attached to. */
export interface JsonEndpoint {
  /** Source id or StreamID. */
  readonly sid: JsonNumber;
  /** PASID; without it the requests that have none. */
  readonly pasid?: JsonNumber;
  /** Domain, or … */
  readonly domain?: JsonNumber;
  /** … bypass. */
  readonly bypass?: boolean;
}

/** The parameters of a format; which ones there are depends on it. */
export interface JsonParameters {
  /** `vtd-ss`, `vtd-fs`, `vtd-nested`, `smmuv3-s1`, `smmuv3-s2`, `smmuv3-nested` or `amdv1`. */
  readonly format: string;
  /** VT-d: `legacy` or `scalable`. */
  readonly mode?: string;
  /** VT-d and AMD: levels of tables. */
  readonly levels?: JsonNumber;
  /** ARM: `4K`, `16K` or `64K`. */
  readonly granule?: string;
  /** ARM: bits of input addresses. */
  readonly iaBits?: JsonNumber;
  /** ARM: bits of output addresses. */
  readonly oaBits?: JsonNumber;
  /** ARM: `linear` (up to 18 bits of StreamIDs) or `2-level` (up to 32). */
  readonly streamTable?: string;
  /** Address of the first table page. */
  readonly base?: JsonNumber;
}

/** What `build` reads. */
export interface BuildInput extends JsonParameters {
  /** Page tables to build. */
  readonly domains?: readonly JsonDomain[];
  /** Endpoints to attach. */
  readonly endpoints?: readonly JsonEndpoint[];
}

/** A piece of memory; exactly one of the encodings. */
export interface JsonChunk {
  /** Address of the first byte, a multiple of 8. */
  readonly addr: JsonNumber;
  /** Bytes in base64. */
  readonly b64?: string;
  /** Bytes in hexadecimal. */
  readonly hex?: string;
  /** 64-bit words. */
  readonly u64?: readonly JsonNumber[];
  /** How many bytes of zeros. */
  readonly zeros?: JsonNumber;
}

/** Values of the registers that lead to the tables. */
export interface JsonRegisters {
  /** VT-d RTADDR_REG. */
  readonly rtaddr?: JsonNumber;
  /** SMMU_STRTAB_BASE. */
  readonly strtab_base?: JsonNumber;
  /** SMMU_STRTAB_BASE_CFG. */
  readonly strtab_cfg?: JsonNumber;
  /** AMD device table base register. */
  readonly devtab?: JsonNumber;
}

/** What `build` writes: the completed description, registers and memory. */
export interface BuildOutput extends BuildInput, JsonRegisters {
  /** The tables. */
  readonly mem: readonly JsonChunk[];
}

/** One question to `walk`. */
export interface JsonQuery {
  /** Input address. */
  readonly iova: JsonNumber;
  /** `r` or `w`. */
  readonly access: string;
  /** Source id or StreamID. */
  readonly sid: JsonNumber;
  /** PASID of the request, if it has one. */
  readonly pasid?: JsonNumber;
  /** Anything; comes back with the answer. */
  readonly id?: unknown;
}

/** What `walk` reads. */
export interface WalkInput extends BuildInput, JsonRegisters {
  /** The tables, unless they are read from an image. */
  readonly mem?: readonly JsonChunk[];
  /** The questions. */
  readonly queries?: readonly JsonQuery[];
}

/** One answer of `walk`: the question as it was written, and what hardware would make of it. */
export interface JsonAnswer extends JsonQuery {
  /** Whether the access is translated. */
  readonly ok: boolean;
  /** Output address, with the offset of `iova`. */
  readonly pa?: string;
  /** Bytes of the leaf; of the whole space for an endpoint that passes. */
  readonly size?: string;
  /** Why the access is not translated. */
  readonly fault?: {
    /** The hardware's own code. */
    readonly code: string;
    /** The reason in our words. */
    readonly name: string;
  };
}

/** What `walk` writes. */
export interface WalkOutput {
  /** One answer for each query, in order. */
  readonly results: readonly JsonAnswer[];
}
