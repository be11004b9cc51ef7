/**
 * The wire format of virtio-iommu: feature bits, request types, sizes, flags, statuses.
 *
 * Source: virtio 1.4, section 5.13 (`struct virtio_iommu_req_*`, `virtio_iommu_config`,
 * `virtio_iommu_fault`). All fields are little endian; all ranges on the wire are inclusive byte
 * ranges. Names follow the specification, without its `VIRTIO_IOMMU_` prefix.
 */

/** Virtio device id of an IOMMU (5.13.1). */
export const DEVICE_ID = 23;

/** Queue that carries requests (5.13.2). */
export const REQUEST_QUEUE = 0;
/** Queue that carries fault reports (5.13.2). */
export const EVENT_QUEUE = 1;
/** Number of queues (5.13.2). */
export const QUEUE_COUNT = 2;

/** `input_range` is valid (5.13.3). */
export const F_INPUT_RANGE = 1 << 0;
/** `domain_range` is valid. */
export const F_DOMAIN_RANGE = 1 << 1;
/** MAP and UNMAP are supported. */
export const F_MAP_UNMAP = 1 << 2;
/** PROBE is supported and `probe_size` valid. */
export const F_PROBE = 1 << 4;
/** The MMIO flag of MAP is allowed. */
export const F_MMIO = 1 << 5;
/** The `bypass` byte and the BYPASS flag of ATTACH are valid. */
export const F_BYPASS_CONFIG = 1 << 6;

/** Names of the feature bits, by bit number; bit 3 is the deprecated BYPASS, never offered. */
export const FEATURE_NAMES: Readonly<Record<number, string>> = {
  0: "INPUT_RANGE",
  1: "DOMAIN_RANGE",
  2: "MAP_UNMAP",
  4: "PROBE",
  5: "MMIO",
  6: "BYPASS_CONFIG",
};

/** Attach an endpoint to a domain (5.13.6.3). */
export const T_ATTACH = 1;
/** Detach an endpoint (5.13.6.4). */
export const T_DETACH = 2;
/** Map a range of a domain (5.13.6.5). */
export const T_MAP = 3;
/** Remove mappings of a domain (5.13.6.6). */
export const T_UNMAP = 4;
/** Ask for the properties of an endpoint (5.13.6.7). */
export const T_PROBE = 5;

/** Names of the request types, by number; 0 stands for every type not in the specification. */
export const REQUEST_NAMES: readonly string[] = [
  "UNKNOWN",
  "ATTACH",
  "DETACH",
  "MAP",
  "UNMAP",
  "PROBE",
];

/** Bytes of the device-readable part of each request, by type. */
export const READABLE_SIZES: readonly number[] = [0, 20, 20, 36, 28, 72];
/** Bytes of the largest device-readable part. */
export const READABLE_SIZE_MAX = 72;
/** Bytes of the tail: status and three reserved bytes (5.13.6). */
export const TAIL_SIZE = 4;

/** Flag of ATTACH: the domain is a bypass domain. */
export const ATTACH_F_BYPASS = 1;
/** Flag of MAP: the endpoint may read. */
export const MAP_F_READ = 1;
/** Flag of MAP: the endpoint may write. */
export const MAP_F_WRITE = 2;
/** Flag of MAP: the range is device memory. */
export const MAP_F_MMIO = 4;

/** The request succeeded (5.13.6, "status"). */
export const S_OK = 0;
/** Virtio communication error. */
export const S_IOERR = 1;
/** Unsupported request. */
export const S_UNSUPP = 2;
/** Internal device error. */
export const S_DEVERR = 3;
/** Invalid parameters. */
export const S_INVAL = 4;
/** Out-of-range parameters. */
export const S_RANGE = 5;
/** Entry not found. */
export const S_NOENT = 6;
/** Bad address. */
export const S_FAULT = 7;
/** Insufficient resources. */
export const S_NOMEM = 8;

/** A status as it stands in the tail of a request. */
export type Status = number;

/** Names of the statuses, by number. */
export const STATUS_NAMES: readonly string[] = [
  "OK",
  "IOERR",
  "UNSUPP",
  "DEVERR",
  "INVAL",
  "RANGE",
  "NOENT",
  "FAULT",
  "NOMEM",
];

/** Property of an endpoint: a reserved memory region (5.13.6.8.1). */
export const PROPERTY_RESV_MEM = 1;
/** Bytes of a property's header: type and length. */
export const PROPERTY_HEADER_SIZE = 4;
/** Bytes of a RESV_MEM property behind its header. */
export const PROPERTY_RESV_MEM_SIZE = 20;

/** Bytes of a fault report (5.13.6.9). */
export const FAULT_SIZE = 24;
/** Fault reason: none of the others. */
export const FAULT_R_UNKNOWN = 0;
/** Fault reason: the endpoint is not attached to a domain. */
export const FAULT_R_DOMAIN = 1;
/** Fault reason: no mapping, or one that forbids the access. */
export const FAULT_R_MAPPING = 2;
/** Fault flag: the access was a read. */
export const FAULT_F_READ = 1 << 0;
/** Fault flag: the access was a write. */
export const FAULT_F_WRITE = 1 << 1;
/** Fault flag: the address field is valid. */
export const FAULT_F_ADDRESS = 1 << 8;
