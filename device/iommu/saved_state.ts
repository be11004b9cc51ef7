/**
 * The state of a device as bytes: what a migration carries from one process to another.
 *
 * Version 2, little endian: magic and version (u32 each), bypass (bit 0 of a u32) and whether nothing is known of what
 * the guest had attached before (bit 1), number of domains, of endpoints given back, of fault reports that wait (u32
 * each); for each domain its id, whether it bypasses, number of endpoints, number of mappings (u32 each), then the
 * endpoint ids (u32 each), then the mappings: first page, last page, first frame (f64 each, exact whole numbers),
 * protection (u32); behind the domains the endpoints given back (u32 each), which there are only with bit 1, and the
 * fault reports as virtio 1.4, 5.13.6.9 has them. Page ranges are inclusive. Tables are not in it: they are built again.
 *
 * Version 1 is read, too: its header ends behind the number of domains, and nothing follows them.
 *
 * The bytes come from outside and are checked like any other input.
 */
import { EINVAL, OK } from "../../pagetable/mod.ts";
import { LAST_PAGE, rangeText } from "../address.ts";
import { WAITING_MAX } from "./fault_events.ts";
import { GIVEN_BACK_MAX } from "./guest_life.ts";
import { PIECE_WORK, type Pieces } from "./pieces.ts";
import { attachStatusOf, statusOf } from "./status.ts";
import type { VirtioIommu } from "./virtio_iommu.ts";
import {
  FAULT_F_ADDRESS,
  FAULT_F_READ,
  FAULT_F_WRITE,
  FAULT_R_MAPPING,
  FAULT_SIZE,
  STATUS_NAMES,
} from "./wire.ts";

/** The first word: "VIOM". */
const MAGIC = 0x4d4f4956;
/** The layout described above. */
const VERSION = 2;
/** Bits of the header's flags. */
const FLAG_BYPASS = 1 << 0;
const FLAG_UNKNOWN = 1 << 1;
/** Bytes of the header in each version, of a domain without its lists, of an endpoint id and of a mapping. */
const HEADER_SIZES: Readonly<Record<number, number>> = { 1: 16, 2: 24 };
const HEADER_SIZE = 24;
const DOMAIN_SIZE = 16;
const ENDPOINT_SIZE = 4;
const MAPPING_SIZE = 28;
/** Endpoints that a guest is expected to attach at most: those of 256 PCI segments. */
const ENDPOINTS_MAX = 2 ** 24;
/** An attachment takes as long as so many mappings. */
const ATTACH_WORK = 64;

/** Most bytes of a state that can be received: an `ArrayBuffer` holds no more. */
const STATE_LIMIT = 2 ** 32 - 1;

/** The limits of a device that bound its state. */
export interface StateLimits {
  /** How many domains there may be. */
  readonly maxDomains: number;
  /** How many mappings there may be over all domains. */
  readonly maxMappings: number;
  /** How many endpoints there are. */
  readonly endpoints: number;
}

/**
 * The most bytes that a state of a device with these limits has: whatever the guest maps can be saved and loaded.
 *
 * @throws {RangeError} If that is more than can be received.
 */
export function stateSizeMax({ maxDomains, maxMappings, endpoints }: StateLimits): number {
  const attached = Math.min(endpoints, ENDPOINTS_MAX);
  const size = HEADER_SIZE + maxDomains * DOMAIN_SIZE + attached * ENDPOINT_SIZE +
    maxMappings * MAPPING_SIZE + GIVEN_BACK_MAX * ENDPOINT_SIZE + WAITING_MAX * FAULT_SIZE;
  if (size <= STATE_LIMIT) return size;
  throw new RangeError(
    `Cannot take up to ${maxMappings} mappings in ${maxDomains} domains: such a device could not be saved, ` +
      `its state would have ${size} bytes and not ${STATE_LIMIT} at most`,
  );
}

/** A domain as it was saved. */
export interface SavedDomain {
  /** Its id. */
  readonly id: number;
  /** Whether its endpoints go through untranslated. */
  readonly bypass: boolean;
  /** Ids of its endpoints: at least one. */
  readonly endpoints: Iterable<number>;
  /** Its mappings, by ascending address. */
  readonly mappings: Iterable<SavedMapping>;
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
  /** The domains; read from the bytes whenever they are gone through, since they may be very many. */
  readonly domains: Iterable<SavedDomain>;
  /** Endpoints that the guest gave back, where nothing is known of what it had attached before. */
  readonly givenBack: readonly number[] | undefined;
  /** Fault reports that wait for the guest, one behind the other. */
  readonly reports: Uint8Array;
}

/** What is saved of a device besides its domains. */
export type SavedRest = Omit<SavedState, "domains">;

/** Writes the state of a device, which must not change meanwhile. */
export function* writeState(
  rest: SavedRest,
  iommu: VirtioIommu,
): Pieces<Uint8Array<ArrayBuffer>> {
  const { domains } = iommu;
  const { bypass, reports } = rest;
  const givenBack = rest.givenBack ?? [];
  const size = domains.reduce(
    (sum, { endpoints, space }) =>
      sum + DOMAIN_SIZE + endpoints.size * ENDPOINT_SIZE + space.mappingCount * MAPPING_SIZE,
    HEADER_SIZE + givenBack.length * ENDPOINT_SIZE + reports.length,
  );
  const view = new DataView(new ArrayBuffer(size));
  const flags = (bypass ? FLAG_BYPASS : 0) | (rest.givenBack === undefined ? 0 : FLAG_UNKNOWN);
  const waiting = reports.length / FAULT_SIZE;
  [MAGIC, VERSION, flags, domains.length, givenBack.length, waiting].forEach((word, i) =>
    view.setUint32(i * 4, word, true)
  );
  let at = HEADER_SIZE;
  let work = 0;
  for (const { id, bypass, endpoints, space } of domains) {
    [id, Number(bypass), endpoints.size, space.mappingCount].forEach((word, i) =>
      view.setUint32(at + i * 4, word, true)
    );
    at += DOMAIN_SIZE;
    for (const endpoint of endpoints) {
      view.setUint32(at, endpoint.id, true);
      at += ENDPOINT_SIZE;
      if (++work % PIECE_WORK === 0) yield;
    }
    const cursor = space.mappings(0);
    while (cursor.next()) {
      view.setFloat64(at, cursor.first, true);
      view.setFloat64(at + 8, cursor.last, true);
      view.setFloat64(at + 16, cursor.index, true);
      view.setUint32(at + 24, cursor.protection, true);
      at += MAPPING_SIZE;
      if (++work % PIECE_WORK === 0) yield;
    }
  }
  for (const endpoint of givenBack) {
    view.setUint32(at, endpoint, true);
    at += ENDPOINT_SIZE;
  }
  const bytes = new Uint8Array(view.buffer);
  bytes.set(reports, at);
  return bytes;
}

/**
 * Reads the state of a device.
 *
 * @returns One line that says what is wrong, if the bytes are no state.
 */
export function* readState(bytes: Uint8Array): Pieces<SavedState | string> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 8 || view.getUint32(0, true) !== MAGIC) {
    return "Cannot load the state: it does not begin as one does";
  }
  const version = view.getUint32(4, true);
  const headerSize = HEADER_SIZES[version];
  if (headerSize === undefined) {
    return `Cannot load the state: its version is ${version}, this program knows 1 to ${VERSION}`;
  }
  if (bytes.length < headerSize) return "Cannot load the state: it ends within its header";
  const flags = view.getUint32(8, true);
  const [givenBackCount, reportCount] = version === 1
    ? [0, 0]
    : [view.getUint32(16, true), view.getUint32(20, true)];
  const isUnknown = version > 1 && (flags & FLAG_UNKNOWN) !== 0;
  if (
    givenBackCount > (isUnknown ? GIVEN_BACK_MAX : 0) || reportCount > WAITING_MAX ||
    flags > (version === 1 ? FLAG_BYPASS : FLAG_BYPASS | FLAG_UNKNOWN)
  ) return "Cannot load the state: its header holds what cannot be";
  const domainCount = view.getUint32(12, true);
  let at = headerSize;
  let work = 0;
  for (let i = 0; i < domainCount; i++) {
    if (bytes.length - at < DOMAIN_SIZE) return truncated(at);
    const endpointCount = view.getUint32(at + 8, true);
    const mappingCount = view.getUint32(at + 12, true);
    const size = DOMAIN_SIZE + endpointCount * ENDPOINT_SIZE + mappingCount * MAPPING_SIZE;
    if (bytes.length - at < size) return truncated(at);
    let isRight = endpointCount > 0;
    for (const mapping of readMappings(view, at + size, mappingCount)) {
      isRight &&= isMapping(mapping);
      if (++work % PIECE_WORK === 0) yield;
    }
    if (!isRight) {
      return `Cannot load the state: domain ${view.getUint32(at, true)} holds what cannot be`;
    }
    if (++work % PIECE_WORK === 0) yield;
    at += size;
  }
  const end = at + givenBackCount * ENDPOINT_SIZE + reportCount * FAULT_SIZE;
  if (end > bytes.length) return "Cannot load the state: it ends behind its domains";
  if (end < bytes.length) {
    return `Cannot load the state: ${bytes.length - end} bytes follow its end`;
  }
  const givenBack = [...readEndpoints(view, at, givenBackCount)];
  const reports = bytes.slice(at + givenBackCount * ENDPOINT_SIZE);
  for (let i = 0; i < reports.length; i += FAULT_SIZE) {
    if (isReport(reports.subarray(i, i + FAULT_SIZE))) continue;
    return "Cannot load the state: a fault report holds what cannot be";
  }
  return {
    bypass: (flags & FLAG_BYPASS) !== 0,
    domains: { [Symbol.iterator]: () => readDomains(view, headerSize, domainCount) },
    givenBack: isUnknown ? givenBack : undefined,
    reports,
  };
}

/**
 * Makes the domains of a state in a device that has none. Guest memory need not be there: a mapping of what is no
 * memory is one, too.
 *
 * @returns One line that says what does not fit this device; what came before it is there.
 */
export function* rebuild(
  domains: Iterable<SavedDomain>,
  iommu: VirtioIommu,
): Pieces<string | undefined> {
  let work = 0;
  for (const { id, bypass, endpoints, mappings } of domains) {
    for (const endpoint of endpoints) {
      // Its device, if it has one, is attached when everything is mapped.
      const error = iommu.attach(id, endpoint, bypass, true);
      if (error !== OK) {
        return `Cannot load the state: endpoint ${endpoint} cannot join domain ${id}: ${
          STATUS_NAMES[attachStatusOf(error)]
        }`;
      }
      // A domain is made with its first endpoint.
      work += ATTACH_WORK;
      if (work < PIECE_WORK) continue;
      work = 0;
      yield;
    }
    const domain = iommu.domain(id);
    for (const { firstPage, lastPage, frame, protection } of mappings) {
      let error = EINVAL;
      if (domain !== undefined && !domain.bypass) {
        error = iommu.map(domain, firstPage, lastPage, frame, protection);
        if (domain.space.isFilling) {
          while (!domain.fillStep()) yield;
          error = iommu.endMap(domain, firstPage, lastPage);
        }
      }
      if (error !== OK) {
        return `Cannot load the state: ${rangeText(firstPage, lastPage)} cannot be mapped: ${
          STATUS_NAMES[statusOf(error)]
        }`;
      }
      if (++work < PIECE_WORK) continue;
      work = 0;
      yield;
    }
    const error = domain === undefined ? OK : iommu.attachHosts(domain);
    if (error !== OK) {
      return `Cannot load the state: a device of the host cannot join domain ${id}: ${
        STATUS_NAMES[attachStatusOf(error)]
      }`;
    }
  }
  return undefined;
}

/** Reads domains that are known to be there. */
function* readDomains(view: DataView, from: number, count: number): Generator<SavedDomain> {
  let at = from;
  for (let i = 0; i < count; i++) {
    const endpointCount = view.getUint32(at + 8, true);
    const mappingCount = view.getUint32(at + 12, true);
    const endpointsAt = at + DOMAIN_SIZE;
    const mappingsAt = endpointsAt + endpointCount * ENDPOINT_SIZE;
    const end = mappingsAt + mappingCount * MAPPING_SIZE;
    yield {
      id: view.getUint32(at, true),
      bypass: view.getUint32(at + 4, true) === 1,
      endpoints: readEndpoints(view, endpointsAt, endpointCount),
      mappings: readMappings(view, end, mappingCount),
    };
    at = end;
  }
}

/** Reads mappings that are known to be there, and end at byte `end`. */
function* readMappings(view: DataView, end: number, count: number): Generator<SavedMapping> {
  for (let at = end - count * MAPPING_SIZE; at < end; at += MAPPING_SIZE) {
    yield {
      firstPage: view.getFloat64(at, true),
      lastPage: view.getFloat64(at + 8, true),
      frame: view.getFloat64(at + 16, true),
      protection: view.getUint32(at + 24, true),
    };
  }
}

/** Reads endpoint ids that are known to be there. */
function* readEndpoints(view: DataView, at: number, count: number): Generator<number> {
  for (let i = 0; i < count; i++) yield view.getUint32(at + i * ENDPOINT_SIZE, true);
}

/** Whether a fault report is one that this device makes: reserved bytes 0, known reason and flags. */
function isReport(report: Uint8Array): boolean {
  const view = new DataView(report.buffer, report.byteOffset);
  const unknownFlags = view.getUint32(4, true) & ~(FAULT_F_READ | FAULT_F_WRITE | FAULT_F_ADDRESS);
  return view.getUint32(0, true) <= FAULT_R_MAPPING && unknownFlags === 0 &&
    view.getUint32(12, true) === 0;
}

/** Whether the numbers of a mapping are in range; whether it fits is for the device to say. */
function isMapping({ firstPage, lastPage, frame, protection }: SavedMapping): boolean {
  return [firstPage, lastPage, frame].every((page) =>
    Number.isSafeInteger(page) && page >= 0 && page <= LAST_PAGE
  ) && firstPage <= lastPage && frame + (lastPage - firstPage) <= LAST_PAGE && protection <= 7;
}

/** The refusal of bytes that end too early. */
function truncated(at: number): string {
  return `Cannot load the state: it ends within the domain at byte ${at}`;
}
