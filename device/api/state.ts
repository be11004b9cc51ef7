/**
 * `GET /v1/state`: the live state of the device.
 *
 * @module
 */
import type { Domain } from "../domain.ts";
import { addressText } from "../address.ts";
import { FEATURE_NAMES, REQUEST_NAMES, STATUS_NAMES } from "../wire.ts";
import type { ApiContext } from "./context.ts";

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
