/**
 * `GET /v1/moved`: which pages the kernel has moved to other host frames since they were mapped (`serve --frames host`).
 */
import { addressText } from "../address.ts";
import type { Domain } from "../iommu/domain.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import { ascending } from "./ascending.ts";
import { type ApiContext, ApiError } from "./context.ts";
import { afterPlace, limitOf, type Place } from "./page.ts";
import type { Work } from "./work.ts";

/** One element of the answer to `GET /v1/moved`: a page. */
export interface MovedState {
  /** Domain id. */
  readonly domain: number;
  /** I/O virtual address. */
  readonly iova: string;
  /** Guest-physical address. */
  readonly guest: string;
  /** Host-physical address that the tables hold. */
  readonly phys: string;
  /** Where the kernel has the page now; null if it has no frame. */
  readonly now: string | null;
}

/** Pages that are looked at between two looks at {@linkcode Work}. */
const PAGES = 64;

/**
 * `GET /v1/moved`: compares every mapped page with the process's page map. A JSON array, a page a line, by ascending
 * domain and address, in pieces between which the mappings may change. `after=DOMAIN:ADDRESS` and `limit=N` make a page
 * of it.
 *
 * @throws {ApiError} If tables hold guest-physical addresses, which do not move.
 */
export function moved(
  { device }: ApiContext,
  query: URLSearchParams,
  work: Work,
): Generator<string, void> {
  if (!device.holdsHostFrames) {
    throw new ApiError(
      404,
      "There are no host frames here: serve --frames host puts them in tables",
    );
  }
  return movedPieces(device, afterPlace(query), limitOf(query), work);
}

function* movedPieces(
  device: IommuDevice,
  after: Place,
  limit: number,
  work: Work,
): Generator<string, void> {
  const { iommu } = device;
  let separator = "[\n";
  let left = limit;
  for (const id of ascending(iommu.domainIds, iommu.domainCount, work)) {
    const domain = id === undefined || id < after.domain ? undefined : iommu.domain(id);
    let next = domain?.id === after.domain ? after.page + 1 : 0;
    while (domain !== undefined && iommu.domain(domain.id) === domain && next >= 0 && left > 0) {
      const lines: string[] = [];
      next = look(device, domain, next, work, lines);
      for (const line of lines.slice(0, left)) {
        yield separator + line;
        separator = ",\n";
        left--;
      }
      if (work.isEnough) yield "";
    }
    if (left === 0) break;
    if (work.isEnough) yield "";
  }
  yield separator === "[\n" ? "[]\n" : "\n]\n";
}

/**
 * Looks at the mapped pages of a domain from `page` on, as many as belong to one mapping and to one step.
 *
 * @returns where to go on, or -1 at the end.
 */
function look(
  device: IommuDevice,
  domain: Domain,
  page: number,
  work: Work,
  lines: string[],
): number {
  const mapping = domain.space.mappings(page);
  work.add(1);
  if (!mapping.next()) return -1;
  const first = Math.max(page, mapping.first);
  const last = Math.min(mapping.last, first + PAGES - 1);
  const table = domain.tables[0];
  for (let at = first; at <= last; at++) {
    const frame = table.runAt(at, at);
    const guest = mapping.index + (at - mapping.first);
    const now = device.hostFrameNow(guest);
    work.add(1);
    if (now === frame) continue;
    const line: MovedState = {
      domain: domain.id,
      iova: addressText(at),
      guest: addressText(guest),
      phys: addressText(frame),
      now: now < 0 ? null : addressText(now),
    };
    lines.push(JSON.stringify(line));
  }
  return last + 1;
}
