/**
 * IOTLB messages of vhost-user on the wire: `struct vhost_iotlb_msg` in 32 bytes.
 *
 * Source: QEMU's `docs/interop/vhost-user.rst`, "An IOTLB message": I/O virtual address u64, size u64, user
 * address u64, permission u8, type u8, padding. The same payload travels from front to back end (IOTLB_MSG: UPDATE,
 * INVALIDATE) and the other way (MISS, ACCESS_FAIL). Pages are numbers of 4 KiB; ranges are inclusive.
 */
import { LAST_PAGE, PAGE_SIZE, writeAddress } from "../../address.ts";

/** Bytes of the payload. */
export const IOTLB_BYTES = 32;

/** What an IOTLB message says. */
export const IotlbType = {
  /** From the back end: it needs a translation. */
  MISS: 1,
  /** To the back end: a translation. */
  UPDATE: 2,
  /** To the back end: translations to forget. */
  INVALIDATE: 3,
  /** From the back end: an access that its translation did not allow. */
  ACCESS_FAIL: 4,
} as const;

const PERMISSION_AT = 24;
const TYPE_AT = 25;

/**
 * A translation of pages that follow each other on both sides.
 *
 * @param userPage Where the first page is in the front end's own address space,
 * @param userOffset and what is added to it, which is 0 where user addresses are multiples of a page.
 * @param permission `READ`, `WRITE` or both, which are the bits of the wire, too.
 */
export function updateMessage(
  firstPage: number,
  lastPage: number,
  userPage: number,
  userOffset: number,
  permission: number,
): Uint8Array {
  const [bytes, data] = empty(IotlbType.UPDATE);
  writeAddress(data, 0, firstPage, 0);
  writeAddress(data, 8, lastPage - firstPage + 1, 0);
  writeAddress(data, 16, userPage, userOffset);
  data.setUint8(PERMISSION_AT, permission);
  return bytes;
}

/**
 * Pages whose translations are to be forgotten. The size of the whole address space is 2^64 - 1, one too small.
 *
 * @param leavesLastByte Ends the range a byte before its last page does. An entry that overlaps the range goes as a whole
 * all the same. It is for DPDK, which otherwise takes the entry that begins right behind the range for a part of it.
 */
export function invalidateMessage(
  firstPage: number,
  lastPage: number,
  leavesLastByte = false,
): Uint8Array {
  const [bytes, data] = empty(IotlbType.INVALIDATE);
  writeAddress(data, 0, firstPage, 0);
  const pages = lastPage - firstPage + 1;
  if (pages > LAST_PAGE) bytes.fill(0xff, 8, 16);
  else if (leavesLastByte) writeAddress(data, 8, pages - 1, PAGE_SIZE - 1);
  else writeAddress(data, 8, pages, 0);
  return bytes;
}

/** A message of the back end. */
export interface BackEndIotlbMessage {
  /** One of {@linkcode IotlbType}, or something unknown. */
  readonly type: number;
  /** The page it is about. */
  readonly page: number;
  /** Bits 11:0 of the address. */
  readonly offset: number;
  /** What the back end wants to do: `READ`, `WRITE` or both. */
  readonly permission: number;
}

/** Reads a payload of at least {@linkcode IOTLB_BYTES}. */
export function readIotlbMessage(data: DataView): BackEndIotlbMessage {
  const low = data.getUint32(0, true);
  return {
    type: data.getUint8(TYPE_AT),
    page: data.getUint32(4, true) * 2 ** 20 + (low >>> 12),
    offset: low & 0xfff,
    permission: data.getUint8(PERMISSION_AT) & 3,
  };
}

function empty(type: number): [Uint8Array, DataView] {
  const bytes = new Uint8Array(IOTLB_BYTES);
  const data = new DataView(bytes.buffer);
  data.setUint8(TYPE_AT, type);
  return [bytes, data];
}
