/**
 * What the API socket answers: the live state of the device as JSON values.
 *
 * Addresses are hexadecimal texts of byte addresses; ids, counts and sizes are numbers. `docs/api.md`
 * describes each route. This file knows nothing of HTTP.
 *
 * @module
 */
import { MMIO, READ, type WalkResult, WRITE } from "../pagetable/mod.ts";
import {
  addressText,
  LAST_PAGE,
  PAGE_SIZE,
  parseAddress,
  parseEndpoint,
  parseNumber,
} from "./address.ts";
import type { IommuDevice } from "./iommu_device.ts";
import type { Domain } from "./domain.ts";
import { FEATURE_NAMES, REQUEST_NAMES, STATUS_NAMES } from "./wire.ts";

/** A request that cannot be answered: the HTTP status and one line that says why. */
export class ApiError extends Error {
  /** Name of the class. */
  override readonly name = "ApiError";
  /** 400 for bad parameters, 404 for what does not exist. */
  readonly status: 400 | 404;

  /** An error to answer with. */
  constructor(status: 400 | 404, message: string) {
    super(message);
    this.status = status;
  }
}

/** What the routes ask besides the device. */
export interface ApiContext {
  /** The device. */
  readonly device: IommuDevice;
  /** Version of the program. */
  readonly version: string;
  /** Whether a front end is connected. */
  readonly connected: boolean;
}

/** The answer to `GET /v1/state`. */
export interface State {
  readonly version: string;
  readonly connected: boolean;
  readonly features: readonly string[];
  readonly bypass: boolean;
  readonly domains: readonly DomainState[];
  readonly endpoints: readonly EndpointState[];
  readonly requests: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly faults: { readonly reported: number; readonly dropped: number };
}

/** A domain in {@linkcode State}. */
export interface DomainState {
  readonly id: number;
  readonly bypass: boolean;
  readonly endpoints: readonly number[];
  readonly mappings: number;
  readonly pages: number;
  readonly tables: readonly TableState[];
}

/** A page table in {@linkcode DomainState}. */
export interface TableState {
  readonly format: string;
  readonly levels: number;
  readonly root: string;
  readonly tablePages: number;
}

/** An endpoint in {@linkcode State}. */
export interface EndpointState {
  readonly id: number;
  readonly domain: number | null;
  readonly format: string;
  readonly faults: number;
}

/** One element of the answer to `GET /v1/mappings`. */
export interface MappingState {
  readonly domain: number;
  readonly iova: string;
  readonly last: string;
  readonly phys: string;
  readonly flags: string;
}

/** The answer to `GET /v1/translate`. */
export type TranslateAnswer =
  | {
    readonly phys: string;
    readonly access: string;
    readonly pageSize: number;
    readonly format: string;
    readonly path: readonly PathEntry[];
  }
  | { readonly fault: { readonly reason: string; readonly code: string } };

/** A table entry that a walk read. */
export interface PathEntry {
  readonly level: number;
  readonly at: string;
  readonly entry: string;
}

/** `GET /v1/state`. */
export function stateOf(context: ApiContext): State {
  const { device } = context;
  return {
    version: context.version,
    connected: context.connected,
    features: Object.entries(FEATURE_NAMES)
      .filter(([bit]) => (device.featuresLow & (1 << Number(bit))) !== 0)
      .map(([_, name]) => name),
    bypass: device.bypass,
    domains: device.iommu.domains.map(domainState),
    endpoints: device.endpoints.list().map((endpoint) => ({
      id: endpoint.id,
      domain: endpoint.domain?.id ?? null,
      format: endpoint.format,
      faults: endpoint.faults,
    })),
    requests: requestCounts(device.iommu.counts),
    faults: { reported: device.faults.reported, dropped: device.faults.dropped },
  };
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

/** `GET /v1/translate`: `endpoint`, `iova` and `access` (`r`, the default, or `w`). */
export function translate(context: ApiContext, query: URLSearchParams): TranslateAnswer {
  const id = parameter(
    "endpoint",
    query.get("endpoint"),
    parseEndpoint,
    "an endpoint such as 24, 0x18 or 00:03.0",
  );
  const iova = parameter(
    "iova",
    query.get("iova"),
    parseAddress,
    "a byte address such as 0x1000 or 4096",
  );
  const access = parameter("access", query.get("access") ?? "r", parseAccess, "r or w");
  const translation = context.device.translate(id, iova.page, access);
  if (translation === undefined) throw new ApiError(404, `There is no endpoint ${id}`);
  if (translation.kind === "blocked") {
    return { fault: { reason: "not-attached", code: "0x0" } };
  }
  if (translation.kind === "bypass") {
    return {
      phys: addressText(iova.page, iova.offset),
      access: "rw",
      pageSize: PAGE_SIZE,
      format: "bypass",
      path: [],
    };
  }
  const { walk, format } = translation;
  if (!walk.ok) {
    return { fault: { reason: walk.faultName, code: `0x${walk.faultCode.toString(16)}` } };
  }
  return {
    phys: addressText(walk.frame, iova.offset),
    access: protectionText(walk.permission),
    pageSize: walk.leafPages * PAGE_SIZE,
    format,
    path: pathOf(walk),
  };
}

/** A query parameter, parsed, or the error that says what it must be. */
function parameter<T>(
  name: string,
  text: string | null,
  parse: (text: string) => T | undefined,
  form: string,
): T {
  if (text === null) throw new ApiError(400, `Parameter ${name} is missing: it must be ${form}`);
  const value = parse(text);
  if (value === undefined) {
    throw new ApiError(400, `Cannot take ${name}=${text}: it must be ${form}`);
  }
  return value;
}

/** `r` or `w` as a protection bit. */
function parseAccess(text: string): number | undefined {
  return text === "r" ? READ : text === "w" ? WRITE : undefined;
}

/** Protection bits as a text of `r`, `w` and `m`. */
function protectionText(protection: number): string {
  return ((protection & READ) !== 0 ? "r" : "") + ((protection & WRITE) !== 0 ? "w" : "") +
    ((protection & MMIO) !== 0 ? "m" : "");
}

/** A domain as the state shows it. */
function domainState(domain: Domain): DomainState {
  return {
    id: domain.id,
    bypass: domain.bypass,
    endpoints: [...domain.endpoints].map((endpoint) => endpoint.id).sort((a, b) => a - b),
    mappings: domain.space.mappingCount,
    pages: domain.space.pageCount,
    tables: domain.tables.map((table) => ({
      format: table.format,
      levels: table.description.levels,
      root: addressText(table.rootFrame),
      tablePages: table.tablePages,
    })),
  };
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

/** Answers by request type and status, those that occurred. */
function requestCounts(
  counts: Float64Array,
): Readonly<Record<string, Readonly<Record<string, number>>>> {
  const requests: Record<string, Record<string, number>> = {};
  counts.forEach((count, at) => {
    if (count === 0) return;
    const type = REQUEST_NAMES[Math.floor(at / STATUS_NAMES.length)];
    requests[type] ??= {};
    requests[type][STATUS_NAMES[at % STATUS_NAMES.length]] = count;
  });
  return requests;
}

/** The entries that a walk read, from the top. */
function pathOf(walk: WalkResult): readonly PathEntry[] {
  return Array.from({ length: walk.depth }, (_, i) => ({
    level: walk.pathLevel[i],
    at: `0x${walk.entryAddress(i).toString(16)}`,
    entry: `0x${walk.entryValue(i).toString(16)}`,
  }));
}
