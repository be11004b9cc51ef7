/**
 * What the specifications say of invalidation commands: which are legal, and which pages they cover.
 * Worked out from the layouts in the specifications and nothing of the code under test.
 *
 * @module
 */

/** A command as its first two 64-bit words. */
export type Command = readonly [bigint, bigint];

/** A range of pages, inclusive. */
export interface PageRange {
  readonly first: bigint;
  readonly last: bigint;
}

/** Every page that an address can name. */
export const EVERYWHERE: PageRange = { first: 0n, last: 2n ** 52n - 1n };

function field(word: bigint, low: number, high: number): bigint {
  return (word >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n);
}

/** Whether `word` has bits set outside of the fields `[low, high]` that the command has. */
function hasOthers(word: bigint, fields: readonly (readonly [number, number])[]): boolean {
  let mask = 0n;
  for (const [low, high] of fields) mask |= ((1n << BigInt(high - low + 1)) - 1n) << BigInt(low);
  return (word & ~mask) !== 0n;
}

/** Why an SMMUv3 without LPA2 would stop at a command (SMMU §4.1.5, §4.3, §4.4, CERROR_ILL); null if it is legal. */
export function smmuComplaint([head, body]: Command): string | null {
  const opcode = field(head, 0, 7);
  const granule = field(body, 10, 11);
  const level = field(body, 8, 9);
  const num = field(head, 12, 16);
  const scale = field(head, 20, 25);
  switch (opcode) {
    case 0x03n: // CFGI_STE: StreamID 63:32; Leaf.
      return hasOthers(head, [[0, 7], [32, 63]]) || hasOthers(body, [[0, 0]]) ? "RES0" : null;
    case 0x04n: // CFGI_STE_RANGE: StreamID 63:32; Range 4:0, 31 for all.
      return hasOthers(head, [[0, 7], [32, 63]]) || hasOthers(body, [[0, 4]]) ? "RES0" : null;
    case 0x05n: // CFGI_CD: SubstreamID 31:12, StreamID 63:32; Leaf.
      return hasOthers(head, [[0, 7], [12, 63]]) || hasOthers(body, [[0, 0]]) ? "RES0" : null;
    case 0x10n: // TLBI_NH_ALL and TLBI_S12_VMALL: VMID 47:32.
    case 0x28n:
      return hasOthers(head, [[0, 7], [32, 47]]) || body !== 0n ? "RES0" : null;
    case 0x11n: // TLBI_NH_ASID: VMID 47:32, ASID 63:48.
      return hasOthers(head, [[0, 7], [32, 63]]) || body !== 0n ? "RES0" : null;
    case 0x30n: // TLBI_NSNH_ALL.
      return head !== 0x30n || body !== 0n ? "RES0" : null;
    case 0x46n: // SYNC without a signal: CS 0.
      return head !== 0x46n || body !== 0n ? "RES0" : null;
    case 0x12n: // TLBI_NH_VA: NUM, SCALE, VMID, ASID; Leaf 0, TTL 9:8, TG 11:10, address 63:12.
      if (hasOthers(head, [[0, 7], [12, 16], [20, 24], [32, 63]])) return "RES0";
      if (hasOthers(body, [[0, 0], [8, 63]])) return "RES0";
      break;
    case 0x2an: // TLBI_S2_IPA: no ASID; the address is an intermediate one of up to 52 bits.
      if (hasOthers(head, [[0, 7], [12, 16], [20, 24], [32, 47]])) return "RES0";
      if (hasOthers(body, [[0, 0], [8, 51]])) return "RES0";
      break;
    default:
      return `opcode ${opcode}`;
  }
  if (granule === 0n) {
    return num !== 0n || scale !== 0n || level !== 0n ? "range fields without TG" : null;
  }
  if (num === 0n && scale === 0n && level === 0n) return "TG without range or level";
  const bits = 10 + 2 * Number(granule);
  if (bits > 12 && field(body, 12, bits - 1) !== 0n) return "address not a multiple of the granule";
  return null;
}

/** The pages that a command by address covers, with a granule of `granuleBits` for those that name none. */
export function smmuCovers([head, body]: Command, granuleBits: number): PageRange | null {
  const opcode = field(head, 0, 7);
  if (opcode === 0x11n || opcode === 0x28n || opcode === 0x30n) return EVERYWHERE;
  if (opcode !== 0x12n && opcode !== 0x2an) return null;
  const unit = 1n << BigInt(granuleBits - 12);
  const page = body >> 12n;
  if (field(body, 10, 11) === 0n) {
    const first = page / unit * unit;
    return { first, last: first + unit - 1n };
  }
  if (Number(field(body, 10, 11)) !== granuleBits / 2 - 5) return null;
  const granules = (field(head, 12, 16) + 1n) << field(head, 20, 24);
  return { first: page, last: page + granules * unit - 1n };
}

/** Why VT-d hardware would refuse a descriptor (VT-d §6.5.2); null if it is legal. */
export function vtdComplaint(
  [head, body]: Command,
  scalable: boolean,
  maxMask: number,
): string | null {
  const granularity = field(head, 4, 5);
  switch (field(head, 0, 3)) {
    case 0x1n: // Context cache: G 5:4, DID 31:16, SID 47:32, FM 49:48.
      if (hasOthers(head, [[0, 5], [16, 49]]) || body !== 0n) return "reserved";
      return granularity === 0n ? "granularity" : null;
    case 0x2n: // IOTLB: G 5:4, DW 6, DR 7, DID 31:16; AM 5:0, IH 6, address 63:12.
      if (hasOthers(head, [[0, 7], [16, 31]])) return "reserved";
      if (granularity === 0n) return "granularity";
      return granularity === 3n ? pageComplaint(body, maxMask) : body === 0n ? null : "reserved";
    case 0x5n: // Wait: IF 4, SW 5, FN 6, data 63:32; address 63:2.
      return hasOthers(head, [[0, 6], [32, 63]]) || field(body, 0, 1) !== 0n ? "reserved" : null;
    case 0x6n: // PASID-based IOTLB: G 5:4, DID 31:16, PASID 51:32.
      if (!scalable) return "not in legacy mode";
      if (hasOthers(head, [[0, 5], [16, 51]])) return "reserved";
      if (granularity < 2n) return "granularity";
      return granularity === 3n ? pageComplaint(body, maxMask) : body === 0n ? null : "reserved";
    case 0x7n: // PASID cache: G 5:4 is 0, 1 or 3, DID 31:16, PASID 51:32.
      if (!scalable) return "not in legacy mode";
      if (hasOthers(head, [[0, 5], [16, 51]]) || body !== 0n) return "reserved";
      return granularity === 2n ? "granularity" : null;
    default:
      return `type ${field(head, 0, 3)}`;
  }
}

function pageComplaint(body: bigint, maxMask: number): string | null {
  if (hasOthers(body, [[0, 6], [12, 63]])) return "reserved";
  const mask = field(body, 0, 5);
  if (mask > BigInt(maxMask)) return "AM above MAMV";
  const aligned = mask === 0n || field(body, 12, 11 + Number(mask)) === 0n;
  return aligned ? null : "address not a multiple of 2^AM pages";
}

/** The pages that an IOTLB descriptor covers; null if it is none. */
export function vtdCovers([head, body]: Command): PageRange | null {
  const type = field(head, 0, 3);
  if (type !== 2n && type !== 6n) return null;
  if (field(head, 4, 5) !== 3n) return EVERYWHERE;
  const first = body >> 12n;
  return { first, last: first + (1n << field(body, 0, 5)) - 1n };
}

/** Why an AMD IOMMU would report ILLEGAL_COMMAND_ERROR (AMD §2.4); null if the command is legal. */
export function amdComplaint([head, body]: Command): string | null {
  switch (head >> 60n) {
    case 1n: // COMPLETION_WAIT: s, i, f 2:0, address 51:3.
      return hasOthers(head, [[0, 51], [60, 63]]) ? "reserved" : null;
    case 2n: // INVALIDATE_DEVTAB_ENTRY: DeviceID 15:0.
      return hasOthers(head, [[0, 15], [60, 63]]) || body !== 0n ? "reserved" : null;
    case 3n: // INVALIDATE_IOMMU_PAGES without GN: DomainID 47:32; S 0, PDE 1, address 63:12.
      return hasOthers(head, [[32, 47], [60, 63]]) || hasOthers(body, [[0, 1], [12, 63]])
        ? "reserved"
        : null;
    case 8n: // INVALIDATE_IOMMU_ALL.
      return head !== 8n << 60n || body !== 0n ? "reserved" : null;
    default:
      return `opcode ${head >> 60n}`;
  }
}

/** The pages that INVALIDATE_IOMMU_PAGES covers; null for other commands. */
export function amdCovers([head, body]: Command): PageRange | null {
  if (head >> 60n === 8n) return EVERYWHERE;
  if (head >> 60n !== 3n) return null;
  const page = body >> 12n;
  if ((body & 1n) === 0n) return { first: page, last: page };
  // The first zero from bit 12 on tells the size; from bit 51 on it is everything (AMD table 14).
  let zero = 12n;
  while (((body >> zero) & 1n) === 1n && zero < 64n) zero++;
  if (zero >= 51n) return EVERYWHERE;
  const pages = 1n << (zero - 11n);
  const first = page & ~(pages - 1n);
  return { first, last: first + pages - 1n };
}
