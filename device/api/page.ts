/**
 * Pages of long lists: where one begins, and how long it is.
 *
 * A list is in ascending order, so a page is named by what was last on the one before (`after`), not by a number:
 * whatever comes or goes between two questions, nothing that stays is left out or listed twice.
 */
import { type Address, parseAddress, parseEndpoint, parseNumber } from "../address.ts";
import { parameter } from "./parameters.ts";

/** The greatest id and limit. */
const MAX = 0xffffffff;

/** Elements that are listed at most (`limit`); no bound by default. */
export function limitOf(query: URLSearchParams): number {
  const text = query.get("limit");
  if (text === null) return Infinity;
  return parameter(
    "limit",
    text,
    (value) => parseNumber(value, MAX) || undefined,
    `a number from 1 to ${MAX}`,
  );
}

/** The endpoint behind which a list of endpoints begins (`after`); -1 for its beginning. */
export function afterEndpoint(query: URLSearchParams): number {
  const text = query.get("after");
  if (text === null) return -1;
  return parameter("after", text, parseEndpoint, "an endpoint such as 24, 0x18 or 00:03.0");
}

/** Where a list by domain and address begins. */
export interface Place {
  /** Domain id; -1 before all. */
  readonly domain: number;
  /** Page in it behind which it begins; -1 before all. */
  readonly page: number;
}

/** Where a list by domain and address begins (`after`). */
export function afterPlace(query: URLSearchParams): Place {
  const text = query.get("after");
  if (text === null) return { domain: -1, page: -1 };
  return parameter("after", text, parsePlace, "a domain id and a byte address such as 2:0x1000");
}

function parsePlace(text: string): Place | undefined {
  const colon = text.indexOf(":");
  const domain = colon < 0 ? undefined : parseNumber(text.slice(0, colon), MAX);
  const address: Address | undefined = parseAddress(text.slice(colon + 1));
  return domain === undefined || address === undefined ? undefined : { domain, page: address.page };
}
