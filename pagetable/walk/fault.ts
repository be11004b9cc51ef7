/**
 * Reasons for which a walk fails, one list for all formats. The hardware's own codes differ by format and by
 * where in a walk it stops; the walkers return both.
 */

/** A reason, as an index into {@linkcode FAULT_NAMES}. */
export type Fault = number;

/** No fault. */
export const NO_FAULT = 0;
/** Nothing is mapped: an entry is not present. */
export const NOT_PRESENT = 1;
/** The access reads and an entry does not permit that. */
export const NO_READ = 2;
/** The access writes and an entry does not permit that. */
export const NO_WRITE = 3;
/** An entry on the path is for supervisor accesses only. */
export const NO_USER = 4;
/** A paging entry has a reserved bit set. */
export const RESERVED_BITS = 5;
/** A paging table cannot be read. */
export const TABLE_UNREADABLE = 6;
/** The input address is wider than the tables. */
export const INPUT_TOO_WIDE = 7;
/** The input address is not canonical. */
export const NOT_CANONICAL = 8;
/** An entry's address is wider than the hardware's output. */
export const OUTPUT_TOO_WIDE = 9;
/** The access flag is clear and hardware does not set it. */
export const ACCESS_FLAG = 10;
/** The output lies in the interrupt range, or a large leaf touches it. */
export const INTERRUPT_RANGE = 11;
/** The input lies in the interrupt range: not DMA but an interrupt request, which is never translated. */
export const INTERRUPT_REQUEST = 12;
/** The root entry or level-1 stream descriptor is not present. */
export const ROOT_NOT_PRESENT = 13;
/** The root entry has a reserved bit set. */
export const ROOT_RESERVED = 14;
/** The root table cannot be read. */
export const ROOT_UNREADABLE = 15;
/** The endpoint's entry is not present. */
export const DEVICE_NOT_PRESENT = 16;
/** The endpoint's entry has a reserved bit set. */
export const DEVICE_RESERVED = 17;
/** The endpoint's entry holds a combination that cannot be. */
export const DEVICE_INVALID = 18;
/** The endpoint's entry cannot be read. */
export const DEVICE_UNREADABLE = 19;
/** The endpoint's id is beyond the table. */
export const BAD_ENDPOINT = 20;
/** The endpoint's entry blocks this kind of request. */
export const BLOCKED = 21;
/** Requests with PASID are not enabled for the endpoint. */
export const PASID_DISABLED = 22;
/** The PASID is beyond the endpoint's table. */
export const PASID_TOO_BIG = 23;
/** The directory entry for the PASID is not present. */
export const PASID_DIRECTORY_NOT_PRESENT = 24;
/** The directory entry for the PASID has a reserved bit set. */
export const PASID_DIRECTORY_RESERVED = 25;
/** The PASID directory cannot be read. */
export const PASID_DIRECTORY_UNREADABLE = 26;
/** The entry for the PASID is not present. */
export const PASID_NOT_PRESENT = 27;
/** The entry for the PASID has a reserved bit set. */
export const PASID_RESERVED = 28;
/** The entry for the PASID holds a combination that cannot be. */
export const PASID_INVALID = 29;
/** The entry for the PASID cannot be read. */
export const PASID_UNREADABLE = 30;

/** Names of the reasons by `WalkResult.fault`, for JSON and logs. */
export const FAULT_NAMES: readonly string[] = [
  "none",
  "not-present",
  "no-read",
  "no-write",
  "no-user",
  "reserved-bits",
  "table-unreadable",
  "input-too-wide",
  "not-canonical",
  "output-too-wide",
  "access-flag",
  "interrupt-range",
  "interrupt-request",
  "root-not-present",
  "root-reserved",
  "root-unreadable",
  "device-not-present",
  "device-reserved",
  "device-invalid",
  "device-unreadable",
  "bad-endpoint",
  "blocked",
  "pasid-disabled",
  "pasid-too-big",
  "pasid-directory-not-present",
  "pasid-directory-reserved",
  "pasid-directory-unreadable",
  "pasid-not-present",
  "pasid-reserved",
  "pasid-invalid",
  "pasid-unreadable",
];
