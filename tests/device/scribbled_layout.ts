/**
 * Where everything is in the memory file that another process scribbles over: both processes go by this.
 *
 * The first {@linkcode MEMORY} bytes are guest memory, at guest address 0. Records of requests in flight and dirty logs
 * lie behind it, with bytes between them that nothing has a right to write.
 *
 * @module
 */
import { inflightBytes } from "../../vring/mod.ts";

/** Entries of every ring. */
export const RING_SIZE = 16;
/** Rings: requests and events of the IOMMU, the entropy device's, the disk's. A ring's first byte is `index * RING_STEP`. */
export const RINGS = 4;
export const RING_STEP = 0x1000;
/** The first ring of the devices behind the IOMMU. */
export const FIRST_ENDPOINT_RING = 2;
/** Parts of a ring behind its first byte: available ring or driver event, used ring or device event. */
export const DRIVER_AREA = 0x400;
export const DEVICE_AREA = 0x800;
/** Indirect tables. */
export const TABLES = 0x4000;
export const TABLE_BYTES = 0x100;
export const TABLE_COUNT = 32;
/** Requests, each at a multiple of {@linkcode REQUEST_BYTES}. */
export const REQUESTS = 0x6000;
export const REQUEST_BYTES = 64;
export const REQUEST_COUNT = 128;
/** What is left of guest memory is buffers. */
export const BUFFERS = 0x8000;
/** Bytes of guest memory. */
export const MEMORY = 0x8_0000;
/** What I/O virtual addresses are above the guest-physical ones. */
export const IOVA = 0x1000_0000;
/** Endpoints of the entropy device and of the disk. */
export const ENDPOINTS: readonly number[] = [8, 16];

/** Sessions at once: the IOMMU's and one for each endpoint. */
export const SESSIONS = 3;
/** Records of requests in flight, one for each session. */
export const RECORDS: number = MEMORY + 0x1000;
export const RECORD_STEP = 0x800;
/** Dirty logs, one for each session. A log is for half of guest memory. */
export const LOGS: number = RECORDS + 0x3000;
export const LOG_STEP = 0x100;
export const LOG_BYTES: number = MEMORY / 4096 / 8 / 2;
/** Words for the two processes; see {@linkcode Control}. */
export const CONTROL: number = LOGS + 0x2000;
/** Bytes of the file. */
export const FILE_BYTES: number = CONTROL + 0x1000;

/** What the words at {@linkcode CONTROL} are. */
export const Control = {
  /** An OR of {@linkcode Mode}. */
  MODE: 0,
  /** Rises as the other process scribbles. */
  COUNT: 1,
} as const;

/** How the rings of the running sessions are. */
export const Mode = { PACKED: 1, TRANSLATED: 2 } as const;

/** Bytes of a queue's part of a record. */
export function recordBytes(isPacked: boolean): number {
  return inflightBytes(isPacked, RING_SIZE);
}

/** Queues of a session's device. */
export function queuesOf(session: number): number {
  return session === 0 ? FIRST_ENDPOINT_RING : 1;
}
