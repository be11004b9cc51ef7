/**
 * The driver's side of the wire: builds requests and reads answers, for the demo, tests and benches.
 *
 * Source: virtio 1.4, section 5.13.6. Addresses are byte addresses of 64 bits as `bigint`, ids are numbers of 32 bits;
 * ranges are inclusive. Each builder returns the device-readable part of a request; the answer comes
 * back in a device-writable part of the size that {@linkcode writableSize} gives.
 */
import { PAGE_SIZE } from "../address.ts";
import {
  READABLE_SIZES,
  STATUS_NAMES,
  T_ATTACH,
  T_DETACH,
  T_MAP,
  T_PROBE,
  T_UNMAP,
  TAIL_SIZE,
} from "./wire.ts";

/** Pages that the low word of an address counts. */
const PAGES_PER_HIGH_WORD = 2 ** 20;

/** Fields of MAP. */
export interface MapFields {
  /** Domain id. */
  readonly domain: number;
  /** First byte to map. */
  readonly virtStart: bigint;
  /** Last byte to map, inclusive. */
  readonly virtEnd: bigint;
  /** Guest-physical address that the first byte leads to. */
  readonly physStart: bigint;
  /** An OR of `MAP_F_…`. */
  readonly flags: number;
}

/** Bytes of the device-writable part that a driver offers with a request. */
export function writableSize(type: number, probeSize: number): number {
  return type === T_PROBE ? probeSize + TAIL_SIZE : TAIL_SIZE;
}

/** ATTACH: puts an endpoint into a domain. `flags` is 0 or `ATTACH_F_BYPASS`. */
export function attachRequest(
  domain: number,
  endpoint: number,
  flags = 0,
): Uint8Array<ArrayBuffer> {
  const view = begin(T_ATTACH);
  view.setUint32(4, domain, true);
  view.setUint32(8, endpoint, true);
  view.setUint32(12, flags, true);
  return new Uint8Array(view.buffer);
}

/** DETACH: takes an endpoint out of a domain. */
export function detachRequest(domain: number, endpoint: number): Uint8Array<ArrayBuffer> {
  const view = begin(T_DETACH);
  view.setUint32(4, domain, true);
  view.setUint32(8, endpoint, true);
  return new Uint8Array(view.buffer);
}

/** MAP: maps a range of a domain. */
export function mapRequest(fields: MapFields): Uint8Array<ArrayBuffer> {
  const view = begin(T_MAP);
  view.setUint32(4, fields.domain, true);
  view.setBigUint64(8, fields.virtStart, true);
  view.setBigUint64(16, fields.virtEnd, true);
  view.setBigUint64(24, fields.physStart, true);
  view.setUint32(32, fields.flags, true);
  return new Uint8Array(view.buffer);
}

/** UNMAP: removes the mappings from byte `virtStart` to byte `virtEnd` of a domain. */
export function unmapRequest(
  domain: number,
  virtStart: bigint,
  virtEnd: bigint,
): Uint8Array<ArrayBuffer> {
  const view = begin(T_UNMAP);
  view.setUint32(4, domain, true);
  view.setBigUint64(8, virtStart, true);
  view.setBigUint64(16, virtEnd, true);
  return new Uint8Array(view.buffer);
}

/**
 * Writes a MAP or UNMAP of pages `[firstPage, lastPage]` into memory, for a caller that sends many: it takes pages and
 * allocates nothing. Fields behind the range are left as they are.
 *
 * @param words Memory in 32-bit words.
 * @param at The request's first word.
 */
export function putRange(
  words: Int32Array,
  at: number,
  type: number,
  domain: number,
  firstPage: number,
  lastPage: number,
): void {
  words[at] = type;
  words[at + 1] = domain;
  words[at + 2] = firstPage % PAGES_PER_HIGH_WORD * PAGE_SIZE;
  words[at + 3] = firstPage / PAGES_PER_HIGH_WORD;
  words[at + 4] = lastPage % PAGES_PER_HIGH_WORD * PAGE_SIZE + PAGE_SIZE - 1;
  words[at + 5] = lastPage / PAGES_PER_HIGH_WORD;
}

/** Writes what a MAP has behind the range: as {@linkcode putRange}. */
export function putTarget(words: Int32Array, at: number, frame: number, flags: number): void {
  words[at + 6] = frame % PAGES_PER_HIGH_WORD * PAGE_SIZE;
  words[at + 7] = frame / PAGES_PER_HIGH_WORD;
  words[at + 8] = flags;
}

/** PROBE: asks for the properties of an endpoint. */
export function probeRequest(endpoint: number): Uint8Array<ArrayBuffer> {
  const view = begin(T_PROBE);
  view.setUint32(4, endpoint, true);
  return new Uint8Array(view.buffer);
}

/** Name of the status in an answer's tail; `UNWRITTEN` if the device wrote none. */
export function statusName(answer: Uint8Array, usedLength: number): string {
  if (usedLength < TAIL_SIZE) return "UNWRITTEN";
  return STATUS_NAMES[answer[usedLength - TAIL_SIZE]] ?? `status ${answer[usedLength - TAIL_SIZE]}`;
}

/** A property in the answer to PROBE. */
export interface Property {
  /** Type, 1 for RESV_MEM. */
  readonly type: number;
  /** RESV_MEM: 0 for reserved, 1 for MSI. */
  readonly subtype: number;
  /** RESV_MEM: first byte. */
  readonly start: bigint;
  /** RESV_MEM: last byte, inclusive. */
  readonly end: bigint;
}

/** The RESV_MEM properties in the answer to a PROBE that succeeded; others are skipped. */
export function readProperties(answer: Uint8Array, probeSize: number): readonly Property[] {
  const view = new DataView(answer.buffer, answer.byteOffset, probeSize);
  const properties: Property[] = [];
  let at = 0;
  while (at + 4 <= probeSize) {
    const type = view.getUint16(at, true) & 0xfff;
    const length = view.getUint16(at + 2, true);
    if (type === 0) break;
    if (type === 1 && at + 24 <= probeSize) {
      properties.push({
        type,
        subtype: view.getUint8(at + 4),
        start: view.getBigUint64(at + 8, true),
        end: view.getBigUint64(at + 16, true),
      });
    }
    at += 4 + length;
  }
  return properties;
}

/** An empty request of a type. */
function begin(type: number): DataView<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(READABLE_SIZES[type]));
  view.setUint8(0, type);
  return view;
}
