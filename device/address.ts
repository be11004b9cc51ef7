/**
 * Addresses in 64-bit fields, command lines, JSON and log lines.
 *
 * The program represents an address as a page number (address / 4096, exact as `number` up to 2^52 - 1) and an offset
 * of 0 to 4095; this module converts it to and from text and eight bytes. `bigint` is used for text only: a 64-bit
 * field is two 32-bit halves.
 */
import { PAGE_SIZE } from "../pagetable/mod.ts";

export { PAGE_SIZE };
/** The last page of a 64-bit address space. */
export const LAST_PAGE = 2 ** 52 - 1;

/** A byte address as page and offset. */
export interface Address {
  /** Address / 4096. */
  readonly page: number;
  /** Address mod 4096. */
  readonly offset: number;
}

/** Whether two addresses are the same. */
export function isSameAddress(one: Address, other: Address): boolean {
  return one.page === other.page && one.offset === other.offset;
}

/** An inclusive range of whole pages. */
export interface AddressRange {
  /** First page. */
  readonly firstPage: number;
  /** Last page, inclusive. */
  readonly lastPage: number;
}

/** The byte address `page * 4096 + offset` as lower-case hexadecimal text such as `0x1000`. */
export function addressText(page: number, offset = 0): string {
  return `0x${(BigInt(page) * 4096n + BigInt(offset)).toString(16)}`;
}

/** A range of whole pages as inclusive byte addresses, such as `0x1000-0x1fff`. */
export function rangeText(firstPage: number, lastPage: number): string {
  return `${addressText(firstPage)}-${addressText(lastPage, PAGE_SIZE - 1)}`;
}

/** Writes the byte address `page * 4096 + offset` as a little-endian 64-bit field. */
export function writeAddress(view: DataView, at: number, page: number, offset: number): void {
  const high = Math.floor(page / 2 ** 20);
  view.setUint32(at, (page - high * 2 ** 20) * PAGE_SIZE + offset, true);
  view.setUint32(at + 4, high, true);
}

/** Reads a little-endian 64-bit field as a byte address. */
export function readAddress(view: DataView, at: number): Address {
  const low = view.getUint32(at, true);
  return { page: view.getUint32(at + 4, true) * 2 ** 20 + (low >>> 12), offset: low & 0xfff };
}

/**
 * Parses a byte address below 2^64, hexadecimal (`0x…`) or decimal.
 *
 * @returns undefined if the text is not such an address.
 */
export function parseAddress(text: string): Address | undefined {
  if (!/^(0[xX][0-9a-fA-F]+|[0-9]+)$/.test(text)) return undefined;
  const value = BigInt(text);
  if (value >= 1n << 64n) return undefined;
  return { page: Number(value >> 12n), offset: Number(value & 0xfffn) };
}

/**
 * Parses an inclusive range of byte addresses that begins and ends with a page, such as
 * `0x8000000-0x80fffff`.
 *
 * @returns undefined if the text is not such a range.
 */
export function parseAddressRange(text: string): AddressRange | undefined {
  const dash = text.indexOf("-");
  const first = parseAddress(text.slice(0, dash));
  const last = parseAddress(text.slice(dash + 1));
  if (dash < 0 || first === undefined || last === undefined) return undefined;
  if (first.offset !== 0 || last.offset !== PAGE_SIZE - 1 || last.page < first.page) {
    return undefined;
  }
  return { firstPage: first.page, lastPage: last.page };
}

/**
 * Parses a whole number from 0 to `last`, hexadecimal (`0x…`) or decimal.
 *
 * @returns undefined if the text is not such a number.
 */
export function parseNumber(text: string, last: number): number | undefined {
  if (!/^(0[xX][0-9a-fA-F]+|[0-9]+)$/.test(text)) return undefined;
  const value = Number(text);
  return value <= last ? value : undefined;
}

/**
 * Parses a size in bytes such as `4096`, `4K`, `2M`, `1G`, `1T`.
 *
 * @returns undefined if the text is not a size from 1 to 2^53 - 1.
 */
export function parseSize(text: string): number | undefined {
  const match = /^([0-9]+)([KMGT]?)$/i.exec(text);
  if (match === null) return undefined;
  const size = Number(match[1]) * 1024 ** " KMGT".indexOf(match[2].toUpperCase() || " ");
  return size >= 1 && Number.isSafeInteger(size) ? size : undefined;
}

/** A size in bytes as text with the largest unit that divides it, such as `2M`. */
export function sizeText(size: number): string {
  let unit = 0;
  while (unit < 4 && size >= 1024 && size % 1024 === 0) {
    size /= 1024;
    unit++;
  }
  return `${size}${["", "K", "M", "G", "T"][unit]}`;
}

/**
 * Parses an endpoint id: a number (`24`, `0x18`) or a PCI address (`00:03.0`, `0000:00:03.0`), whose id is
 * segment * 65536 + bus * 256 + device * 8 + function.
 *
 * @returns undefined if the text is neither.
 */
export function parseEndpoint(text: string): number | undefined {
  const match = /^(?:([0-9a-f]{4}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7])$/i.exec(text);
  if (match === null) return parseNumber(text, 0xffffffff);
  const [segment, bus, device, fn] = match.slice(1).map((part) => parseInt(part ?? "0", 16));
  return segment * 65536 + bus * 256 + device * 8 + fn;
}

/** An endpoint id as a PCI address such as `00:03.0`, with its segment where that is not 0. */
export function endpointText(id: number): string {
  function hex(value: number, digits: number): string {
    return value.toString(16).padStart(digits, "0");
  }
  const segment = Math.floor(id / 65536);
  const address = `${hex((id >>> 8) & 0xff, 2)}:${hex((id >>> 3) & 0x1f, 2)}.${id & 7}`;
  return segment === 0 ? address : `${hex(segment, 4)}:${address}`;
}

/**
 * Parses one endpoint or an inclusive range of them, `FIRST[-LAST]`.
 *
 * @returns The first and last id; undefined if the text is no such range.
 */
export function parseEndpointRange(text: string): [first: number, last: number] | undefined {
  const dash = text.indexOf("-");
  const first = parseEndpoint(dash < 0 ? text : text.slice(0, dash));
  const last = dash < 0 ? first : parseEndpoint(text.slice(dash + 1));
  if (first === undefined || last === undefined || last < first) return undefined;
  return [first, last];
}
