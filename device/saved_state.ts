/**
 * The state of a device as bytes: what a migration carries from one process to another.
 *
 * Version 1, little endian: magic and version (u32 each), bypass (u32), number of domains (u32); for each
 * domain its id, whether it bypasses, number of endpoints, number of mappings (u32 each), then the endpoint
 * ids (u32 each), then the mappings: first page, last page, first frame (f64 each, exact whole numbers),
 * protection (u32). Page ranges are inclusive. Tables are not in it: they are built again.
 *
 * The bytes come from outside and are checked like any other input.
 *
 * @module
 */
import { LAST_PAGE, rangeText } from "./address.ts";
import type { VirtioIommu } from "./virtio_iommu.ts";
import { S_INVAL, S_OK, STATUS_NAMES } from "./wire.ts";

/** The first word: "VIOM". */
const MAGIC = 0x4d4f4956;
/** The layout described above. */
const VERSION = 1;
/** Bytes of the header, of a domain without its lists, of an endpoint id and of a mapping. */
const HEADER_SIZE = 16;
const DOMAIN_SIZE = 16;
const ENDPOINT_SIZE = 4;
const MAPPING_SIZE = 28;

/** A domain as it was saved. */
export interface SavedDomain {
  /** Its id. */
  readonly id: number;
  /** Whether its endpoints go through untranslated. */
  readonly bypass: boolean;
  /** Ids of its endpoints: at least one. */
  readonly endpoints: readonly number[];
  /** Its mappings, by ascending address. */
  readonly mappings: readonly SavedMapping[];
}

/** A mapping as it was saved. */
export interface SavedMapping {
  /** First page. */
  readonly firstPage: number;
  /** Last page, inclusive. */
  readonly lastPage: number;
  /** Frame that the first page leads to. */
  readonly frame: number;
  /** As MAP gave it. */
  readonly protection: number;
}

/** A device as it was saved. */
export interface SavedState {
  /** The bypass byte of the configuration space. */
  readonly bypass: boolean;
  /** The domains. */
  readonly domains: readonly SavedDomain[];
}

/** Writes the state of a device. */
export function writeState(bypass: boolean, iommu: VirtioIommu): Uint8Array<ArrayBuffer> {
  const { domains } = iommu;
  const size = domains.reduce(
    (sum, { endpoints, space }) =>
      sum + DOMAIN_SIZE + endpoints.size * ENDPOINT_SIZE + space.mappingCount * MAPPING_SIZE,
    HEADER_SIZE,
  );
  const view = new DataView(new ArrayBuffer(size));
  [MAGIC, VERSION, Number(bypass), domains.length].forEach((word, i) =>
    view.setUint32(i * 4, word, true)
  );
  let at = HEADER_SIZE;
  for (const { id, bypass, endpoints, space } of domains) {
    [id, Number(bypass), endpoints.size, space.mappingCount].forEach((word, i) =>
      view.setUint32(at + i * 4, word, true)
    );
    at += DOMAIN_SIZE;
    for (const endpoint of endpoints) {
      view.setUint32(at, endpoint.id, true);
      at += ENDPOINT_SIZE;
    }
    const cursor = space.mappings(0);
    while (cursor.next()) {
      view.setFloat64(at, cursor.first, true);
      view.setFloat64(at + 8, cursor.last, true);
      view.setFloat64(at + 16, cursor.index, true);
      view.setUint32(at + 24, cursor.protection, true);
      at += MAPPING_SIZE;
    }
  }
  return new Uint8Array(view.buffer);
}

/**
 * Reads the state of a device.
 *
 * @returns One line that says what is wrong, if the bytes are no state.
 */
export function readState(bytes: Uint8Array): SavedState | string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < HEADER_SIZE || view.getUint32(0, true) !== MAGIC) {
    return "Cannot load the state: it does not begin as one does";
  }
  const version = view.getUint32(4, true);
  if (version !== VERSION) {
    return `Cannot load the state: its version is ${version}, this program knows ${VERSION}`;
  }
  const domains: SavedDomain[] = [];
  let at = HEADER_SIZE;
  for (let i = 0; i < view.getUint32(12, true); i++) {
    if (bytes.length - at < DOMAIN_SIZE) return truncated(at);
    const endpointCount = view.getUint32(at + 8, true);
    const mappingCount = view.getUint32(at + 12, true);
    const size = DOMAIN_SIZE + endpointCount * ENDPOINT_SIZE + mappingCount * MAPPING_SIZE;
    if (bytes.length - at < size) return truncated(at);
    const domain = readDomain(view, at, endpointCount, mappingCount);
    const wrong = domain.mappings.find((mapping) => !isMapping(mapping));
    if (endpointCount === 0 || wrong !== undefined) {
      return `Cannot load the state: domain ${domain.id} holds what cannot be`;
    }
    domains.push(domain);
    at += size;
  }
  if (at !== bytes.length) {
    return `Cannot load the state: ${bytes.length - at} bytes follow its end`;
  }
  return { bypass: view.getUint32(8, true) === 1, domains };
}

/**
 * Makes the domains of a state in a device that has none.
 *
 * @returns One line that says what does not fit this device; what came before it is there.
 */
export function rebuild(state: SavedState, iommu: VirtioIommu): string | undefined {
  for (const { id, bypass, endpoints, mappings } of state.domains) {
    for (const endpoint of endpoints) {
      const status = iommu.attach(id, endpoint, bypass);
      if (status !== S_OK) {
        return `Cannot load the state: endpoint ${endpoint} cannot join domain ${id}: ${
          STATUS_NAMES[status]
        }`;
      }
    }
    const domain = iommu.domain(id);
    for (const { firstPage, lastPage, frame, protection } of mappings) {
      const status = domain === undefined || domain.bypass
        ? S_INVAL
        : iommu.map(domain, firstPage, lastPage, frame, protection);
      if (status !== S_OK) {
        return `Cannot load the state: ${rangeText(firstPage, lastPage)} cannot be mapped: ${
          STATUS_NAMES[status]
        }`;
      }
    }
  }
  return undefined;
}

/** Reads a domain whose lists are known to be there. */
function readDomain(
  view: DataView,
  at: number,
  endpointCount: number,
  mappingCount: number,
): SavedDomain {
  const mappingsAt = at + DOMAIN_SIZE + endpointCount * ENDPOINT_SIZE;
  return {
    id: view.getUint32(at, true),
    bypass: view.getUint32(at + 4, true) === 1,
    endpoints: Array.from(
      { length: endpointCount },
      (_, i) => view.getUint32(at + DOMAIN_SIZE + i * ENDPOINT_SIZE, true),
    ),
    mappings: Array.from({ length: mappingCount }, (_, i) => {
      const from = mappingsAt + i * MAPPING_SIZE;
      return {
        firstPage: view.getFloat64(from, true),
        lastPage: view.getFloat64(from + 8, true),
        frame: view.getFloat64(from + 16, true),
        protection: view.getUint32(from + 24, true),
      };
    }),
  };
}

/** Whether the numbers of a mapping are in range; whether it fits is for the device to say. */
function isMapping({ firstPage, lastPage, frame, protection }: SavedMapping): boolean {
  return [firstPage, lastPage, frame].every((page) =>
    Number.isSafeInteger(page) && page >= 0 && page <= LAST_PAGE
  ) && firstPage <= lastPage && frame + (lastPage - firstPage) <= LAST_PAGE && protection <= 7;
}

/** What is wrong with bytes that end too early. */
function truncated(at: number): string {
  return `Cannot load the state: it ends within the domain at byte ${at}`;
}
