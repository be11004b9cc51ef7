/**
 * `GET /v1/mappings`: what is mapped.
 *
 * @module
 */
import { MMIO, READ, WRITE } from "../../pagetable/mod.ts";
import { addressText, LAST_PAGE, PAGE_SIZE, parseNumber } from "../address.ts";
import type { Domain } from "../iommu/domain.ts";
import { ascending } from "./ascending.ts";
import { type ApiContext, ApiError } from "./context.ts";
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
 * address, in pieces between which the mappings may change.
 *
 * @throws {ApiError} If the parameter is none, or there is no such domain.
 */
export function mappings(
  context: ApiContext,
  query: URLSearchParams,
  work: Work,
): Generator<string, void> {
  const { iommu } = context.device;
  const text = query.get("domain");
  if (text === null) {
    return mappingPieces(context, ascending(iommu.domainIds, iommu.domainCount, work), work);
  }
  const id = parameter("domain", text, (value) => parseNumber(value, 0xffffffff), "a domain id");
  if (iommu.domain(id) === undefined) throw new ApiError(404, `There is no domain ${id}`);
  return mappingPieces(context, [id], work);
}

function* mappingPieces(
  { device }: ApiContext,
  ids: Iterable<number | undefined>,
  work: Work,
): Generator<string, void> {
  let separator = "[\n";
  for (const id of ids) {
    const domain = id === undefined ? undefined : device.iommu.domain(id);
    if (domain === undefined) {
      if (work.isEnough) yield "";
      continue;
    }
    for (const piece of domainMappings(domain, () => device.iommu.domain(domain.id), work)) {
      if (piece === "") {
        yield "";
        continue;
      }
      yield separator + piece;
      separator = ",\n";
    }
  }
  yield separator === "[\n" ? "[]\n" : "\n]\n";
}

/**
 * The mappings of a domain, by ascending address, separated, in pieces.
 *
 * No two overlap: where a mapping that was shown has given way to one that reaches further, that one is left out.
 *
 * @param current The domain that has its id now: another one begins anew.
 */
function* domainMappings(
  domain: Domain,
  current: () => Domain | undefined,
  work: Work,
): Generator<string, void> {
  const cursor = domain.space.mappings(0);
  let text = "";
  let shown = -1;
  work.add(1);
  while (current() === domain && cursor.next()) {
    if (cursor.first > shown) {
      const mapping: MappingState = {
        domain: domain.id,
        iova: addressText(cursor.first),
        last: addressText(Math.min(cursor.last, LAST_PAGE), PAGE_SIZE - 1),
        phys: addressText(cursor.index),
        flags: protectionText(cursor.protection),
      };
      text += text === "" ? JSON.stringify(mapping) : `,\n${JSON.stringify(mapping)}`;
      shown = cursor.last;
    }
    work.add(1);
    if (!work.isEnough) continue;
    yield text;
    text = "";
  }
  if (text !== "") yield text;
  else if (work.isEnough) yield "";
}

/** Protection bits as a text of `r`, `w` and `m`. */
export function protectionText(protection: number): string {
  return ((protection & READ) !== 0 ? "r" : "") + ((protection & WRITE) !== 0 ? "w" : "") +
    ((protection & MMIO) !== 0 ? "m" : "");
}
