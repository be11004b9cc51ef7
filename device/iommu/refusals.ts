/**
 * Why requests are refused: the requirement of the specification that a request does not meet, or a limit of the device.
 *
 * A check answers with a key of {@linkcode REFUSALS}, so that a refusal costs no object. A key is the number of the
 * requirement in `docs/conformance.md`, or a word where the specification has no requirement of its own.
 */
import {
  EADDRINUSE,
  EEXIST,
  EFAULT,
  EINVAL,
  ENOENT,
  ENOMEM,
  EOPNOTSUPP,
  ERANGE,
  type Errno,
} from "../../pagetable/mod.ts";
import {
  S_INVAL,
  S_NOENT,
  S_RANGE,
  S_UNSUPP,
  type Status,
  T_ATTACH,
  T_DETACH,
  T_UNMAP,
} from "./wire.ts";

/** A field of a request, as the specification names it. */
export type RequestField =
  | "domain"
  | "endpoint"
  | "flags"
  | "virt_start"
  | "virt_end"
  | "phys_start";

/** What there is to say of a refusal. */
export interface Refusal {
  /** What is wrong with the request, in a clause. */
  readonly text: string;
  /** The fields that it is about. */
  readonly fields: readonly RequestField[];
}

const RANGE = ["domain", "virt_start", "virt_end"] as const;
const MAPPING = [...RANGE, "phys_start"] as const;
const UNKNOWN_FLAG = "a flag is unknown, or its feature was not negotiated";
const NO_DOMAIN = "there is no such domain";
const NO_ENDPOINT = "there is no such endpoint";
const BYPASS_DOMAIN = "the domain is a bypass domain";

/** Every reason to refuse a request. */
export const REFUSALS = {
  A1: { text: "the reserved field is not zero", fields: [] },
  A2: { text: UNKNOWN_FLAG, fields: ["flags"] },
  A3: { text: NO_ENDPOINT, fields: ["endpoint"] },
  A5: { text: "the BYPASS flag disagrees with the domain", fields: ["domain", "flags"] },
  A7: { text: "the endpoint cannot have the domain's mappings", fields: ["domain", "endpoint"] },
  group: {
    text: "a device of the same host group is attached to another domain",
    fields: ["domain", "endpoint"],
  },
  D2: { text: NO_ENDPOINT, fields: ["endpoint"] },
  D3: { text: "the endpoint is not attached", fields: ["domain", "endpoint"] },
  M1: {
    text: "an address is not aligned on the page granularity",
    fields: ["virt_start", "virt_end", "phys_start"],
  },
  M2: { text: "a mapping exists in the range", fields: RANGE },
  M3: { text: UNKNOWN_FLAG, fields: ["flags"] },
  M4: { text: NO_DOMAIN, fields: ["domain"] },
  M5: { text: BYPASS_DOMAIN, fields: ["domain"] },
  R4: { text: "the range overlaps a reserved region of an endpoint", fields: RANGE },
  U1: { text: "the reserved field is not zero", fields: [] },
  U2: { text: NO_DOMAIN, fields: ["domain"] },
  U3: { text: BYPASS_DOMAIN, fields: ["domain"] },
  U4: { text: "the range would split a mapping", fields: RANGE },
  P2: { text: NO_ENDPOINT, fields: ["endpoint"] },
  P3: { text: "PROBE is not offered", fields: [] },
  P7: { text: "the device-writable part is smaller than probe_size", fields: ["endpoint"] },
  O2: { text: "the request type is unknown", fields: [] },
  short: { text: "the device-readable part is shorter than the request", fields: [] },
  full: { text: "the device-writable part has no room for a status", fields: [] },
  access: { text: "neither READ nor WRITE is set", fields: ["flags"] },
  order: { text: "virt_end is below virt_start", fields: RANGE },
  input: { text: "the range is not within input_range", fields: RANGE },
  frames: { text: "the frames reach beyond 2^64", fields: MAPPING },
  tables: { text: "the page tables cannot express the range or its frames", fields: MAPPING },
  memory: { text: "the frames are not in guest memory", fields: MAPPING },
  limit: {
    text: "a limit of domains, mappings, pinned or table memory is reached",
    fields: ["domain"],
  },
  reset: { text: "the device was reset before the request was done", fields: ["domain"] },
  device: { text: "the device failed", fields: ["domain"] },
  poison: { text: "each process that executed the request has ended", fields: ["domain"] },
} as const satisfies Readonly<Record<string, Refusal>>;

/** A key of {@linkcode REFUSALS}. */
export type RefusalKey = keyof typeof REFUSALS;

/** The status that answers what a check of the fields has refused. */
export function statusOfRefusal(key: RefusalKey): Status {
  switch (key) {
    case "M4":
    case "U2":
    case "P2":
      return S_NOENT;
    case "M1":
    case "U4":
    case "order":
    case "input":
    case "frames":
      return S_RANGE;
    case "O2":
    case "P3":
    case "group":
      return S_UNSUPP;
    default:
      return S_INVAL;
  }
}

/** The reason behind an errno of an operation on domains, by request type. */
export function refusalOfErrno(type: number, error: Errno): RefusalKey {
  switch (error) {
    case EEXIST:
      return "M2";
    case EADDRINUSE:
      return type === T_ATTACH ? "A7" : "R4";
    case EINVAL:
      return type === T_ATTACH ? "A5" : type === T_DETACH ? "D3" : "R4";
    case ENOENT:
      return type === T_ATTACH
        ? "A3"
        : type === T_DETACH
        ? "D2"
        : type === T_UNMAP
        ? "U4"
        : "device";
    case ERANGE:
      return type === T_ATTACH ? "A7" : "tables";
    case EFAULT:
      return "memory";
    case ENOMEM:
      return "limit";
    case EOPNOTSUPP:
      return "A7";
    default:
      return "device";
  }
}
