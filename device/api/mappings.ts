/**
 * `GET /v1/mappings`: what is mapped.
 *
 * @module
 */
import { MMIO, READ, WRITE } from "../../pagetable/mod.ts";
import { addressText, LAST_PAGE, PAGE_SIZE, parseNumber } from "../address.ts";
import type { Domain } from "../domain.ts";
import { type ApiContext, ApiError } from "./context.ts";
import { parameter } from "./parameters.ts";

/** One element of the answer to `GET /v1/mappings`. */
export interface MappingState {
  /** Domain id. */
  readonly domain: number;
  /** First byte. */
  readonly iova: string;
  /** Last byte, inclusive. */
  readonly last: string;
  /** Guest-physical address that the first byte leads to. */
  readonly phys: string;
  /** Out of `r`, `w` and `m` (device memory). */
  readonly flags: string;
}

/** `GET /v1/mappings`, of one domain (`domain=ID`) or of all. */
export function mappingsOf(context: ApiContext, query: URLSearchParams): readonly MappingState[] {
  const text = query.get("domain");
  if (text === null) return context.device.iommu.domains.flatMap(domainMappings);
  const id = parameter("domain", text, (value) => parseNumber(value, 0xffffffff), "a domain id");
  const domain = context.device.iommu.domain(id);
  if (domain === undefined) throw new ApiError(404, `There is no domain ${id}`);
  return domainMappings(domain);
}

/** The mappings of a domain, by ascending IOVA. */
function domainMappings(domain: Domain): readonly MappingState[] {
  const list: MappingState[] = [];
  const cursor = domain.space.mappings(0);
  while (cursor.next()) {
    list.push({
      domain: domain.id,
      iova: addressText(cursor.first),
      last: addressText(Math.min(cursor.last, LAST_PAGE), PAGE_SIZE - 1),
      phys: addressText(cursor.index),
      flags: protectionText(cursor.protection),
    });
  }
  return list;
}

/** Protection bits as a text of `r`, `w` and `m`. */
export function protectionText(protection: number): string {
  return ((protection & READ) !== 0 ? "r" : "") + ((protection & WRITE) !== 0 ? "w" : "") +
    ((protection & MMIO) !== 0 ? "m" : "");
}
