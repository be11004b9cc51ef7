/**
 * Reads values of the exchange form, such as numbers, pages and protections. Messages of errors say what is wrong.
 */
import type { JsonNumber } from "./types.ts";
import { MMIO, PAGE_SIZE, READ, WRITE } from "../page_table.ts";
import { pageAt, pageOffset } from "../address.ts";

const LIMIT = 1n << 64n;

/**
 * A non-negative number below 2^64.
 *
 * @throws TypeError for what is not a number, RangeError for what is too large.
 */
export function readNumber(value: JsonNumber | undefined, what: string): bigint {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return BigInt(value);
  if (typeof value === "string" && /^(0x[0-9a-f]+|[0-9]+)$/i.test(value)) {
    const number = BigInt(value);
    if (number < LIMIT) return number;
    throw new RangeError(`Cannot read ${what}: ${value} is beyond 64 bits`);
  }
  throw new TypeError(`Cannot read ${what}: ${JSON.stringify(value)} is not a number`);
}

/** As {@linkcode readNumber}, for small numbers: ids, levels, bits. */
export function readSmall(value: JsonNumber | undefined, what: string): number {
  const number = readNumber(value, what);
  if (number > 0xffff_ffffn) throw new RangeError(`Cannot read ${what}: ${value} is too large`);
  return Number(number);
}

/** As {@linkcode readNumber}, for an address or a length in whole pages. @returns pages. */
export function readPages(value: JsonNumber | undefined, what: string): number {
  const number = readNumber(value, what);
  if (pageOffset(number) !== 0) {
    throw new RangeError(`Cannot read ${what}: ${value} is not a multiple of ${PAGE_SIZE}`);
  }
  return pageAt(number);
}

/** A protection: `r`, `w` or `rw`, and whether it is device memory. */
export function readProtection(prot: string | undefined, mmio: boolean | undefined): number {
  const device = mmio === true ? MMIO : 0;
  switch (prot) {
    case "r":
      return READ | device;
    case "w":
      return WRITE | device;
    case "rw":
      return READ | WRITE | device;
    default:
      throw new TypeError(`Cannot read prot: ${JSON.stringify(prot)} is none of r, w, rw`);
  }
}

/** A granule: `4K`, `16K` or `64K`. @returns bytes. */
export function readGranule(granule: string | undefined): number {
  switch (granule) {
    case undefined:
    case "4K":
      return PAGE_SIZE;
    case "16K":
      return 16384;
    case "64K":
      return 65536;
    default:
      throw new RangeError(
        `Cannot read granule: ${JSON.stringify(granule)} is none of 4K, 16K, 64K`,
      );
  }
}

/** One of a few words. */
export function readWord<Word extends string>(
  value: string | undefined,
  what: string,
  words: readonly Word[],
): Word {
  const found = words.find((word) => word === value);
  if (found !== undefined) return found;
  throw new RangeError(
    `Cannot read ${what}: ${JSON.stringify(value)} is none of ${words.join(", ")}`,
  );
}

/** A list, or nothing for an empty one. */
export function readList<Item>(
  value: readonly Item[] | undefined,
  what: string,
): readonly Item[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw new TypeError(`Cannot read ${what}: it is not a list`);
  return value;
}

/** An object, for what comes out of JSON.parse. */
export function readObject<Shape>(value: unknown, what: string): Shape {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new TypeError(`Cannot read ${what}: it is not an object`);
  }
  return value as Shape;
}

/** A number in the form that we write: lower-case hexadecimal. */
export function hex(value: bigint | number): string {
  return `0x${value.toString(16)}`;
}
