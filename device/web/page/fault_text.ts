/**
 * What a fault says, in words, with the section of the specification that says so.
 *
 * VT-d: Intel Virtualization Technology for Directed I/O. SMMU: Arm SMMU architecture; Arm: Arm architecture reference
 * manual. AMD: AMD I/O virtualization technology (IOMMU) specification.
 */
import { STAGE_DEVICE } from "../../../pagetable/mod.ts";

/** What there is to say of a fault. */
export interface FaultText {
  /** What happened, in a clause. */
  readonly text: string;
  /** How hardware records it: the code, and its name where the specification has one. */
  readonly recorded: string;
  /** The sections of the specification. */
  readonly sections: string;
}

/** The reasons in words, by their names. */
const WORDS: Readonly<Record<string, string>> = {
  "not-present": "the entry is not present: nothing is mapped here",
  "no-read": "an entry on the path does not permit reads",
  "no-write": "an entry on the path does not permit writes",
  "no-user": "an entry on the path permits supervisor accesses only, and DMA is none",
  "reserved-bits": "the entry has a bit set that is reserved",
  "table-unreadable": "the entry leads to a table that cannot be read",
  "input-too-wide": "the address is wider than the tables translate",
  "not-canonical": "the address is not canonical: its upper bits differ",
  "output-too-wide": "the entry's address is wider than the hardware's physical addresses",
  "access-flag": "the access flag is clear, and hardware does not set it",
  "interrupt-range": "the translation leads into the interrupt address range",
  "interrupt-request": "the address is in the interrupt address range: not DMA, but an interrupt",
  "root-not-present": "the first entry for the endpoint is not present",
  "root-reserved": "the first entry for the endpoint has a bit set that is reserved",
  "root-unreadable": "the first table for the endpoint cannot be read",
  "device-not-present": "the endpoint's entry is not present",
  "device-reserved": "the endpoint's entry has a bit set that is reserved",
  "device-invalid": "the endpoint's entry holds values that cannot be",
  "device-unreadable": "the endpoint's entry, or the table that it leads to, cannot be read",
  "pasid-directory-not-present": "the entry of the PASID directory is not present",
  "pasid-directory-reserved": "the entry of the PASID directory has a bit set that is reserved",
  "pasid-directory-unreadable": "the PASID directory cannot be read",
  "pasid-not-present": "the entry for the PASID is not present",
  "pasid-reserved": "the entry for the PASID has a bit set that is reserved",
  "pasid-invalid": "the entry for the PASID holds values that cannot be",
  "pasid-unreadable": "the table with the entry for the PASID cannot be read",
  "pasid-disabled": "requests with PASID are not enabled for the endpoint",
  "pasid-too-big": "the PASID is beyond the endpoint's table",
  "bad-endpoint": "the endpoint's id is beyond the table",
  "blocked": "the endpoint is attached to no domain, or its entry blocks it",
};

/** SMMUv3 events by number (SMMU 7.3). */
const SMMU_EVENTS: Readonly<Record<number, string>> = {
  0x02: "C_BAD_STREAMID",
  0x03: "F_STE_FETCH",
  0x04: "C_BAD_STE",
  0x06: "F_STREAM_DISABLED",
  0x08: "C_BAD_SUBSTREAMID",
  0x09: "F_CD_FETCH",
  0x0a: "C_BAD_CD",
  0x0b: "F_WALK_EABT",
  0x10: "F_TRANSLATION",
  0x11: "F_ADDR_SIZE",
  0x12: "F_ACCESS",
  0x13: "F_PERMISSION",
};
/** AMD events by number (AMD 2.5). */
const AMD_EVENTS: Readonly<Record<number, string>> = {
  1: "ILLEGAL_DEV_TABLE_ENTRY",
  2: "IO_PAGE_FAULT",
  3: "DEV_TAB_HARDWARE_ERROR",
  4: "PAGE_TAB_HARDWARE_ERROR",
  8: "INVALID_DEVICE_REQUEST",
};

/** Sections about the entries of page tables, by format, and about those of device tables. */
const PAGE_TABLES: Readonly<Record<string, string>> = {
  "vtd-ss": "VT-d 3.7, 9.8",
  "vtd-fs": "VT-d 3.6, 9.7",
  "smmuv3-s1": "Arm D8.3",
  "smmuv3-s2": "Arm D8.3",
  "amdv1": "AMD 2.2.3",
};
const DEVICE_TABLES: Readonly<Record<string, string>> = {
  "vtd-ss": "VT-d 9.1, 9.3",
  "vtd-fs": "VT-d 9.1, 9.4 to 9.6",
  "smmuv3-s1": "SMMU 5.2, 5.4",
  "smmuv3-s2": "SMMU 5.2",
  "amdv1": "AMD 2.2.2",
};

/**
 * A fault in words.
 *
 * @param name The name of its reason, one of `FAULT_NAMES`.
 * @param code The hardware's own code.
 * @param stage The kind of the last entry that was read, one of the `STAGE_…` constants; undefined if none was.
 */
export function faultText(
  format: string,
  name: string,
  code: number,
  stage: number | undefined,
): FaultText {
  const text = WORDS[name] ?? name;
  if (stage === undefined) {
    // The model answers for what has no entry: no hardware code stands for it.
    return {
      text,
      recorded: code === 0 ? "reported to the guest by the event queue" : codeText(format, code),
      sections: name === "blocked" ? "virtio 5.13.6.2" : sectionOfCode(format),
    };
  }
  const tables = stage === STAGE_DEVICE ? DEVICE_TABLES : PAGE_TABLES;
  return {
    text,
    recorded: codeText(format, code),
    sections: `${tables[format]}; ${sectionOfCode(format)}`,
  };
}

/** The code as hardware records it. */
function codeText(format: string, code: number): string {
  const number = `0x${code.toString(16)}`;
  if (format.startsWith("vtd")) return `fault reason ${number}`;
  const name = (format === "amdv1" ? AMD_EVENTS : SMMU_EVENTS)[code];
  return `event ${number}${name === undefined ? "" : ` ${name}`}`;
}

/** The section that lists the codes. */
function sectionOfCode(format: string): string {
  if (format.startsWith("vtd")) return "VT-d 7.1.3";
  return format === "amdv1" ? "AMD 2.5" : "SMMU 7.3";
}
