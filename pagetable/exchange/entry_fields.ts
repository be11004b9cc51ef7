/**
 * The fields of table entries, under the names that the specifications give them: for people, not for walking.
 *
 * Of entries longer than 8 bytes, those of the first 8. VT-d: 3.4, chapter 9. SMMUv3: SMMU architecture 5.2 to 5.4, and
 * D8.3 of the Arm architecture for descriptors. AMD: IOMMU specification 3.10, chapter 2.
 */

/** A field: its name, its lowest bit, its bits, and whether it is an address that starts at that bit. */
type Field = readonly [name: string, low: number, width: number, kind?: "address"];

const VTD_ROOT: readonly Field[] = [["P", 0, 1], ["CTP", 12, 52, "address"]];
const VTD_CONTEXT: readonly Field[] = [
  ["P", 0, 1],
  ["FPD", 1, 1],
  ["TT", 2, 2],
  ["SSPTPTR", 12, 52, "address"],
];
const VTD_SCALABLE_CONTEXT: readonly Field[] = [
  ["P", 0, 1],
  ["FPD", 1, 1],
  ["DTE", 2, 1],
  ["PASIDE", 3, 1],
  ["PRE", 4, 1],
  ["PDTS", 9, 3],
  ["PASIDDIRPTR", 12, 52, "address"],
];
const VTD_PASID_DIRECTORY: readonly Field[] = [
  ["P", 0, 1],
  ["FPD", 1, 1],
  ["SMPTBLPTR", 12, 52, "address"],
];
const VTD_PASID: readonly Field[] = [
  ["P", 0, 1],
  ["FPD", 1, 1],
  ["AW", 2, 3],
  ["SSEE", 5, 1],
  ["PGTT", 6, 3],
  ["SSADE", 9, 1],
  ["SSPTPTR", 12, 52, "address"],
];
const VTD_SECOND_STAGE: readonly Field[] = [
  ["R", 0, 1],
  ["W", 1, 1],
  ["X", 2, 1],
  ["EMT", 3, 3],
  ["IPAT", 6, 1],
  ["PS", 7, 1],
  ["A", 8, 1],
  ["D", 9, 1],
  ["SNP", 11, 1],
  ["ADDR", 12, 40, "address"],
  ["TM", 62, 1],
];
const VTD_FIRST_STAGE: readonly Field[] = [
  ["P", 0, 1],
  ["RW", 1, 1],
  ["US", 2, 1],
  ["PWT", 3, 1],
  ["PCD", 4, 1],
  ["A", 5, 1],
  ["D", 6, 1],
  ["PS", 7, 1],
  ["G", 8, 1],
  ["EA", 10, 1],
  ["ADDR", 12, 40, "address"],
  ["XD", 63, 1],
];
const SMMU_L1STD: readonly Field[] = [["Span", 0, 5], ["L2Ptr", 6, 46, "address"]];
const SMMU_STE: readonly Field[] = [
  ["V", 0, 1],
  ["Config", 1, 3],
  ["S1Fmt", 4, 2],
  ["S1ContextPtr", 6, 46, "address"],
  ["S1CDMax", 59, 5],
];
const SMMU_L1CD: readonly Field[] = [["V", 0, 1], ["L2Ptr", 12, 40, "address"]];
const SMMU_CD: readonly Field[] = [
  ["V", 31, 1],
  ["T0SZ", 0, 6],
  ["TG0", 6, 2],
  ["IR0", 8, 2],
  ["OR0", 10, 2],
  ["SH0", 12, 2],
  ["EPD0", 14, 1],
  ["ENDI", 15, 1],
  ["T1SZ", 16, 6],
  ["TG1", 22, 2],
  ["IR1", 24, 2],
  ["OR1", 26, 2],
  ["SH1", 28, 2],
  ["EPD1", 30, 1],
  ["IPS", 32, 3],
  ["AFFD", 35, 1],
  ["WXN", 36, 1],
  ["UWXN", 37, 1],
  ["TBI", 38, 2],
  ["PAN", 40, 1],
  ["AA64", 41, 1],
  ["HD", 42, 1],
  ["HA", 43, 1],
  ["S", 44, 1],
  ["R", 45, 1],
  ["A", 46, 1],
  ["ASET", 47, 1],
  ["ASID", 48, 16],
];
const ARM_TABLE: readonly Field[] = [
  ["Valid", 0, 1],
  ["Table", 1, 1],
  ["ADDR", 12, 36, "address"],
  ["PXNTable", 59, 1],
  ["UXNTable", 60, 1],
  ["APTable", 61, 2],
  ["NSTable", 63, 1],
];
const ARM_STAGE_1: readonly Field[] = [
  ["Valid", 0, 1],
  ["Page", 1, 1],
  ["AttrIndx", 2, 3],
  ["NS", 5, 1],
  ["AP", 6, 2],
  ["SH", 8, 2],
  ["AF", 10, 1],
  ["nG", 11, 1],
  ["ADDR", 12, 36, "address"],
  ["DBM", 51, 1],
  ["Contiguous", 52, 1],
  ["PXN", 53, 1],
  ["UXN", 54, 1],
];
const ARM_STAGE_2: readonly Field[] = [
  ["Valid", 0, 1],
  ["Page", 1, 1],
  ["MemAttr", 2, 4],
  ["S2AP", 6, 2],
  ["SH", 8, 2],
  ["AF", 10, 1],
  ["ADDR", 12, 36, "address"],
  ["DBM", 51, 1],
  ["Contiguous", 52, 1],
  ["XN", 53, 2],
];
const AMD_DTE: readonly Field[] = [
  ["V", 0, 1],
  ["TV", 1, 1],
  ["HAD", 7, 2],
  ["Mode", 9, 3],
  ["HostPageTableRoot", 12, 40, "address"],
  ["PPR", 52, 1],
  ["GPRP", 53, 1],
  ["GIoV", 54, 1],
  ["GV", 55, 1],
  ["GLX", 56, 2],
  ["GCR3", 58, 3],
  ["IR", 61, 1],
  ["IW", 62, 1],
];
const AMD_PTE: readonly Field[] = [
  ["PR", 0, 1],
  ["A", 5, 1],
  ["D", 6, 1],
  ["NextLevel", 9, 3],
  ["ADDR", 12, 40, "address"],
  ["U", 59, 1],
  ["FC", 60, 1],
  ["IR", 61, 1],
  ["IW", 62, 1],
];

/** Fields by kind of entry. */
const FIELDS = {
  "vtd-root": VTD_ROOT,
  "vtd-context": VTD_CONTEXT,
  "vtd-scalable-context": VTD_SCALABLE_CONTEXT,
  "vtd-pasid-directory": VTD_PASID_DIRECTORY,
  "vtd-pasid": VTD_PASID,
  "vtd-ss": VTD_SECOND_STAGE,
  "vtd-fs": VTD_FIRST_STAGE,
  "smmu-l1std": SMMU_L1STD,
  "smmu-ste": SMMU_STE,
  "smmu-l1cd": SMMU_L1CD,
  "smmu-cd": SMMU_CD,
  "arm-table": ARM_TABLE,
  "smmuv3-s1": ARM_STAGE_1,
  "smmuv3-s2": ARM_STAGE_2,
  "amd-dte": AMD_DTE,
  "amdv1": AMD_PTE,
} as const;

/** A kind of entry. */
export type EntryKind = keyof typeof FIELDS;

/** Values by the name of the field: numbers, and byte addresses in hexadecimal. */
export type EntryFields = Readonly<Record<string, number | string>>;

/**
 * The fields of an entry that are not 0, and the first one, which says whether the entry is there.
 *
 * @param entry Its value, or its first 8 bytes.
 */
export function entryFields(kind: EntryKind, entry: bigint): EntryFields {
  const fields: Record<string, number | string> = {};
  for (const [name, low, width, form] of FIELDS[kind] as readonly Field[]) {
    const value = (entry >> BigInt(low)) & ((1n << BigInt(width)) - 1n);
    if (value === 0n && Object.keys(fields).length > 0) continue;
    fields[name] = form === "address" ? `0x${(value << BigInt(low)).toString(16)}` : Number(value);
  }
  return fields;
}

/** The name of the field of an entry, or of its first 8 bytes, that has a bit; empty if none that is named here has. */
export function fieldOfBit(kind: EntryKind, bit: number): string {
  const fields: readonly Field[] = FIELDS[kind];
  const field = fields.find(([, low, width]) => bit >= low && bit < low + width);
  return field === undefined ? "" : field[0];
}
