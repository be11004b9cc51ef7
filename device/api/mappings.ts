/** `GET /v1/mappings`: what is mapped. */
import { MMIO, READ, WRITE } from "../../pagetable/mod.ts";
import { addressText, LAST_PAGE, PAGE_SIZE, parseNumber } from "../address.ts";
import type { Domain } from "../iommu/domain.ts";
import { ascending } from "./ascending.ts";
import { type ApiContext, ApiError } from "./context.ts";
import { afterPlace, limitOf, type Place } from "./page.ts";
import { parameter } from "./parameters.ts";
import type { Work } from "./work.ts";

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

/**
 * `GET /v1/mappings`, of one domain (`domain=ID`) or of all: a JSON array, a mapping a line, by ascending domain and
 * address, in pieces between which the mappings may change. `after=DOMAIN:ADDRESS` and `limit=N` make a page of it.
 *
 * @throws {ApiError} If a parameter is wrong, or there is no such domain.
 */
export function mappings(
  context: ApiContext,
  query: URLSearchParams,
  work: Work,
): Generator<string, void> {
  const { iommu } = context.device;
  const after = afterPlace(query);
  const limit = limitOf(query);
  const text = query.get("domain");
  if (text === null) {
    const ids = ascending(iommu.domainIds, iommu.domainCount, work);
    return mappingPieces(context, ids, after, limit, work);
  }
  const id = parameter("domain", text, (value) => parseNumber(value, 0xffffffff), "a domain id");
  if (iommu.domain(id) === undefined) throw new ApiError(404, `There is no domain ${id}`);
  return mappingPieces(context, [id], after, limit, work);
}

function* mappingPieces(
  { device }: ApiContext,
  ids: Iterable<number | undefined>,
  after: Place,
  limit: number,
  work: Work,
): Generator<string, void> {
  let separator = "[\n";
  let left = limit;
  for (const id of ids) {
    const domain = id === undefined || id < after.domain ? undefined : device.iommu.domain(id);
    if (domain === undefined) {
      if (work.isEnough) yield "";
      continue;
    }
    const page = domain.id === after.domain ? after.page : -1;
    const lines = domainMappings(domain, () => device.iommu.domain(domain.id), page, left, work);
    for (const piece of lines) {
      left -= piece.length;
      if (piece.length === 0) {
        yield "";
        continue;
      }
      yield separator + piece.join(",\n");
      separator = ",\n";
    }
    if (left === 0) break;
  }
  yield separator === "[\n" ? "[]\n" : "\n]\n";
}

/**
 * The mappings of a domain, by ascending address, in pieces.
 *
 * No two overlap: where a mapping that was shown has given way to one that reaches further, that one is left out.
 *
 * @param current The domain that has its id now: another one begins anew.
 * @param after Those that begin behind this page; -1 for all.
 * @param limit So many at most.
 */
function* domainMappings(
  domain: Domain,
  current: () => Domain | undefined,
  after: number,
  limit: number,
  work: Work,
): Generator<readonly string[], void> {
  const cursor = domain.space.mappings(after + 1);
  let lines: string[] = [];
  let left = limit;
  let shown = after;
  work.add(1);
  while (left > 0 && current() === domain && cursor.next()) {
    if (cursor.first > shown) {
      const mapping: MappingState = {
        domain: domain.id,
        iova: addressText(cursor.first),
        last: addressText(Math.min(cursor.last, LAST_PAGE), PAGE_SIZE - 1),
        phys: addressText(cursor.index),
        flags: protectionText(cursor.protection),
      };
      lines.push(JSON.stringify(mapping));
      left--;
      shown = cursor.last;
    }
    work.add(1);
    if (!work.isEnough) continue;
    yield lines;
    lines = [];
  }
  if (lines.length > 0 || work.isEnough) yield lines;
}

/** Protection bits as a text of `r`, `w` and `m`. */
export function protectionText(protection: number): string {
  return ((protection & READ) !== 0 ? "r" : "") + ((protection & WRITE) !== 0 ? "w" : "") +
    ((protection & MMIO) !== 0 ? "m" : "");
}
