/** `GET /v1/state`: the live state of the device. */
import type { Domain } from "../iommu/domain.ts";
import type { EndpointProxy } from "../endpoint/proxy/mod.ts";
import type { EndpointService } from "../endpoint/endpoint_service.ts";
import type { HostDeviceState } from "../endpoint/host_endpoint.ts";
import type { GuestLife } from "../iommu/guest_life.ts";
import { addressText } from "../address.ts";
import { FEATURE_NAMES, REQUEST_NAMES, STATUS_NAMES } from "../iommu/wire.ts";
import { ascending } from "./ascending.ts";
import type { ApiContext, ProcessState, SandboxState } from "./context.ts";
import { type EndpointRelayState, relayState } from "./relay_state.ts";
import type { Work } from "./work.ts";

/** The answer to `GET /v1/state`. */
export interface State {
  /** Version of the program. */
  readonly version: string;
  /** Whether a front end is connected. */
  readonly connected: boolean;
  /** Names of the features offered. */
  readonly features: readonly string[];
  /** Whether unattached endpoints reach memory. */
  readonly bypass: boolean;
  /**
   * How many endpoints are blocked because it is not known what the guest has attached, or `all` but those that it
   * attaches or gives back; absent where all is known.
   */
  readonly blocked?: number | "all";
  /** The domains there are. */
  readonly domains: readonly DomainState[];
  /** Endpoints that were attached, are blocked, have faulted, or have a device that this process serves or translates for. */
  readonly endpoints: readonly EndpointState[];
  /** Answers by request type and status since the start. */
  readonly requests: Readonly<Record<string, Readonly<Record<string, number>>>>;
  /** The process that serves, with `serve --supervise`; absent otherwise. */
  readonly process?: ProcessState;
  /** Fault reports to the guest. */
  readonly faults: { readonly reported: number; readonly dropped: number };
  /**
   * Sessions that were ended because something failed on their behalf, since the start, by what was served: `iommu`,
   * a device, proxy or relay with its endpoint, `the API`. Absent where nothing has failed.
   */
  readonly failures?: Readonly<Record<string, number>>;
  /** The sandbox of the process. */
  readonly sandbox?: SandboxState;
}

/** A domain in {@linkcode State}. */
export interface DomainState {
  /** Domain id. */
  readonly id: number;
  /** Whether its endpoints go through untranslated. */
  readonly bypass: boolean;
  /** Ids of its endpoints. */
  readonly endpoints: readonly number[];
  /** Live mappings. */
  readonly mappings: number;
  /** 4 KiB pages of them. */
  readonly pages: number;
  /** One for each format among the endpoints. */
  readonly tables: readonly TableState[];
}

/** A page table in {@linkcode DomainState}. */
export interface TableState {
  /** Name of the format. */
  readonly format: string;
  /** Levels of tables. */
  readonly levels: number;
  /** Byte address of the top table. */
  readonly root: string;
  /** Pages of table memory in use. */
  readonly tablePages: number;
}

/** An endpoint in {@linkcode State}. */
export interface EndpointState {
  /** Endpoint id. */
  readonly id: number;
  /** The domain it is attached to, or null. */
  readonly domain: number | null;
  /** Whether it is blocked because it is not known whether the guest has attached it; absent otherwise. */
  readonly blocked?: true;
  /** Format of its tables. */
  readonly format: string;
  /** Accesses that were refused. */
  readonly faults: number;
  /** What the device did that this process serves there. */
  readonly device?: EndpointDeviceState;
  /** What was done for a back end of another program. */
  readonly proxy?: EndpointProxyState;
  /** The back end of another program that does the work of the device. */
  readonly relay?: EndpointRelayState;
  /** The device of the host that is passed through there. */
  readonly hostDevice?: HostDeviceState;
}

/** A proxied back end in {@linkcode EndpointState}; counts are since the start. */
export interface EndpointProxyState {
  /** Whether a VMM and the back end are connected. */
  readonly connected: boolean;
  /** Times that both were. */
  readonly sessions: number;
  /** Translations that the back end asked for. */
  readonly misses: number;
  /** Translations given to it. */
  readonly updates: number;
  /** Those of them that led to the same guest-physical addresses. */
  readonly identityUpdates: number;
  /** Translations that it refused. */
  readonly refused: number;
  /** Times it was told to forget translations. */
  readonly invalidations: number;
  /** Times it acknowledged that. */
  readonly acknowledged: number;
  /** Times that answers to the guest began to wait for it. */
  readonly waits: number;
  /** Misses that nothing was mapped for. */
  readonly faults: number;
  /** Those of them that were answered when something was. */
  readonly lateUpdates: number;
  /** Times it was disconnected because it did not acknowledge in time. */
  readonly timeouts: number;
  /** Microseconds from an invalidation to its acknowledgement, the median of the last 256. */
  readonly medianMicroseconds: number;
  /** The longest of all. */
  readonly longestMicroseconds: number;
}

/** A device behind the IOMMU in {@linkcode EndpointState}; counts are since the start. */
export interface EndpointDeviceState {
  /** `rng` or `blk`. */
  readonly type: string;
  /** Whether a front end of its own is connected. */
  readonly connected: boolean;
  /** Requests answered. */
  readonly requests: number;
  /** Bytes read from guest memory. */
  readonly readBytes: number;
  /** Bytes written to guest memory. */
  readonly writtenBytes: number;
  /** Translations that were found in the IOTLB. */
  readonly iotlbHits: number;
  /** Translations that had to be walked for. */
  readonly iotlbMisses: number;
  /** Accesses that were refused. */
  readonly faults: number;
}

/**
 * `GET /v1/state`: a JSON object of the type {@linkcode State}, in pieces between which the state may change. Domains
 * and endpoints are by ascending id.
 */
export function* state(context: ApiContext, work: Work): Generator<string, void> {
  const { device } = context;
  const { iommu } = device;
  const head = {
    version: context.version,
    connected: context.connected,
    features: Object.entries(FEATURE_NAMES)
      .filter(([bit]) => (device.featuresLow & (1 << Number(bit))) !== 0)
      .map(([_, name]) => name),
    bypass: device.bypass,
    ...(device.life.blocksAny ? { blocked: device.life.blockedCount ?? "all" } : {}),
  };
  let text = `${JSON.stringify(head).slice(0, -1)},"domains":[`;
  let separator = "";
  for (const id of ascending(iommu.domainIds, iommu.domainCount, work)) {
    const domain = id === undefined ? undefined : iommu.domain(id);
    if (domain !== undefined) {
      text += separator;
      separator = ",";
      for (const piece of domainState(domain, work)) {
        text += piece;
        if (!work.isEnough) continue;
        yield text;
        text = "";
      }
    } else if (work.isEnough) {
      yield text;
      text = "";
    }
  }
  text += '],"endpoints":[';
  separator = "";
  for (const id of endpointIds(context, work)) {
    if (id !== undefined) {
      text += separator + JSON.stringify(endpointState(context, id));
      separator = ",";
    }
    if (!work.isEnough) continue;
    yield text;
    text = "";
  }
  const faults = { reported: device.faults.reported, dropped: device.faults.dropped };
  const { failures = {}, sandbox, process } = context;
  const tail = JSON.stringify({
    requests: requestCounts(device.requests.counts),
    faults,
    ...(Object.keys(failures).length === 0 ? {} : { failures }),
    ...(sandbox === undefined ? {} : { sandbox }),
    ...(process === undefined ? {} : { process }),
  });
  yield `${text}],${tail.slice(1)}\n`;
}

/** The endpoints worth showing, by ascending id, each once. */
function* endpointIds(
  { device: { endpoints, life }, services = [], proxies = [], relays = [], hostDevices = [] }:
    ApiContext,
  work: Work,
): Generator<number | undefined, void> {
  const served = [...services, ...proxies, ...relays, ...hostDevices].map(({ endpoint }) =>
    endpoint
  )
    .sort((a, b) => a - b);
  let last = -1;
  const count = endpoints.seenCount + (life.blockedCount ?? 0);
  for (const id of ascending(seenOrBlocked(endpoints, life), count, work)) {
    if (id === undefined) {
      yield undefined;
      continue;
    }
    while (served.length > 0 && served[0] < id) {
      const next = served.shift()!;
      if (next !== last) yield next;
      last = next;
    }
    if (served[0] === id) served.shift();
    if (id !== last) yield id;
    last = id;
  }
  for (const id of served) {
    if (id !== last) yield id;
    last = id;
  }
}

function* seenOrBlocked(
  { seenIds }: { readonly seenIds: Iterable<number> },
  life: GuestLife,
): Generator<number, void> {
  yield* seenIds;
  yield* life.blockedIds;
}

/** One endpoint. */
function endpointState(
  { device, services = [], proxies = [], relays = [], hostDevices = [] }: ApiContext,
  id: number,
): EndpointState {
  const endpoint = device.endpoints.seen(id);
  const relay = relays.find((each) => each.endpoint === id);
  const service = relay?.service ?? services.find((each) => each.endpoint === id);
  const proxy = proxies.find((each) => each.endpoint === id);
  const hostDevice = hostDevices.find((each) => each.endpoint === id)?.hostDevice;
  return {
    id,
    domain: endpoint?.domain?.id ?? null,
    ...(endpoint?.domain === undefined && device.life.blocks(id) ? { blocked: true } : {}),
    format: endpoint?.format ?? device.endpoints.formatOf(id) ?? "",
    faults: endpoint?.faults ?? 0,
    ...(service === undefined ? {} : { device: deviceState(service) }),
    ...(proxy === undefined ? {} : { proxy: proxyState(proxy) }),
    ...(relay === undefined ? {} : { relay: relayState(relay) }),
    ...(hostDevice === undefined ? {} : { hostDevice }),
  };
}

/** What a device behind the IOMMU did. */
function deviceState(service: EndpointService): EndpointDeviceState {
  const { type, counters } = service.device;
  return {
    type,
    connected: service.connected,
    requests: counters.requests,
    readBytes: counters.readBytes,
    writtenBytes: counters.writtenBytes,
    iotlbHits: service.iotlbHits,
    iotlbMisses: service.iotlbMisses,
    faults: service.faults,
  };
}

/** What was done for a back end of another program. */
function proxyState({ connected, counters }: EndpointProxy): EndpointProxyState {
  return {
    connected,
    sessions: counters.sessions,
    misses: counters.misses,
    updates: counters.updates,
    identityUpdates: counters.identityUpdates,
    refused: counters.refused,
    invalidations: counters.invalidations,
    acknowledged: counters.acknowledged,
    waits: counters.waits,
    faults: counters.faults,
    lateUpdates: counters.lateUpdates,
    timeouts: counters.timeouts,
    medianMicroseconds: Math.round(counters.times.quantile(0.5)),
    longestMicroseconds: Math.round(counters.times.longest),
  };
}

/** A domain as the state shows it, of the type {@linkcode DomainState}, in pieces. */
function* domainState(domain: Domain, work: Work): Generator<string, void> {
  let text = `{"id":${domain.id},"bypass":${domain.bypass},"endpoints":[`;
  let separator = "";
  for (const id of ascending(idsOf(domain), domain.endpoints.size, work)) {
    if (id !== undefined) {
      text += separator + id;
      separator = ",";
    }
    if (!work.isEnough) continue;
    yield text;
    text = "";
  }
  const rest: Omit<DomainState, "id" | "bypass" | "endpoints"> = {
    mappings: domain.space.mappingCount,
    pages: domain.space.pageCount,
    tables: domain.tables.map((table) => ({
      format: table.format,
      levels: table.description.levels,
      root: addressText(table.rootFrame),
      tablePages: table.tablePages,
    })),
  };
  work.add(2);
  yield `${text}],${JSON.stringify(rest).slice(1)}`;
}

/** The ids of a domain's endpoints, in the order in which they were attached. */
function* idsOf(domain: Domain): Generator<number, void> {
  for (const endpoint of domain.endpoints) yield endpoint.id;
}

/** Answers by request type and status, those that occurred. */
export function requestCounts(
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
