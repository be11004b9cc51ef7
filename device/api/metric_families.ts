/**
 * What is measured: every metric family with its meaning, and where its values come from.
 *
 * Nothing is counted for metrics alone: they are the counters of `GET /v1/state` under the names and units of
 * OpenMetrics 1.0. `metrics.ts` prints them, `telemetry.ts` hands them to OpenTelemetry.
 */
import { endpointText } from "../address.ts";
import type { EndpointService } from "../endpoint/endpoint_service.ts";
import type { HostDeviceState } from "../endpoint/host_endpoint.ts";
import type { EndpointProxy } from "../endpoint/proxy/mod.ts";
import type { ApiContext } from "./context.ts";
import { type EndpointRelayState, relayState } from "./relay_state.ts";
import { requestCounts } from "./state.ts";
import type { Work } from "./work.ts";

/** Names and values of labels. */
export type Labels = Readonly<Record<string, string>>;

/** A value with its labels. */
export type Sample = readonly [labels: Labels, value: number];

/** A metric family. */
export interface MetricFamily {
  /** Name, with the unit at its end, without `_total`. */
  readonly name: string;
  /** Whether it only rises, or says how things are. */
  readonly type: "counter" | "gauge";
  /** `seconds` or `bytes`; absent for what is counted. */
  readonly unit?: "seconds" | "bytes";
  /** What it says, in a sentence. */
  readonly help: string;
  /** Its values now, and how much work they take. */
  readonly samples: (context: ApiContext, work: Work) => Iterable<Sample>;
}

/** Every family, the ones about the device first. */
export const FAMILIES: readonly MetricFamily[] = [
  gauge(
    "viommu_connected",
    "Whether a front end is connected.",
    ({ connected }) => only(connected),
  ),
  gauge(
    "viommu_domains",
    "Domains that the guest has made.",
    ({ device }) => only(device.iommu.domainCount),
  ),
  gauge(
    "viommu_mappings",
    "Mappings of all domains.",
    ({ device }) => only(device.iommu.mappingCount),
  ),
  gauge("viommu_mapped_pages", "4 KiB pages that are mapped, over all domains.", mappedPages),
  gauge("viommu_attached_endpoints", "Endpoints that are attached to a domain.", attachedEndpoints),
  gauge(
    "viommu_table_pages",
    "4 KiB pages of table memory in use.",
    ({ device }) => only(device.hardware.memory.used),
  ),
  counter("viommu_requests", "Requests of the guest, by type and status.", requests),
  counter("viommu_fault_reports", "Fault reports, by whether the guest got them.", ({ device }) => [
    [{ outcome: "reported" }, device.faults.reported],
    [{ outcome: "dropped" }, device.faults.dropped],
  ]),
  counter(
    "viommu_failed_sessions",
    "Sessions that were ended because something failed, by what was served.",
    ({ failures = {} }) => Object.entries(failures).map(([served, count]) => [{ served }, count]),
  ),
  counter(
    "viommu_process_deaths",
    "Processes that have died while they served; with serve --supervise.",
    ({ process }) => process === undefined ? [] : only(process.deaths),
  ),
  counter(
    "viommu_process_pauses",
    "Times that nothing served, because a process had died or was replaced.",
    ({ process }) => process === undefined ? [] : only(process.pauses.count),
  ),
  {
    name: "viommu_process_pause_seconds",
    type: "gauge",
    unit: "seconds",
    help: "How long these pauses were: the median of the last ones, and the longest of all.",
    samples: ({ process }) =>
      process === undefined ? [] : [
        [{ of: "median" }, process.pauses.medianMilliseconds / 1000],
        [{ of: "longest" }, process.pauses.longestMilliseconds / 1000],
      ],
  },
  gauge(
    "viommu_endpoint_connected",
    "Whether a front end of the endpoint is connected.",
    (context) => [
      ...served(context, ({ connected }) => Number(connected)),
      ...proxies(context, ({ connected }) => Number(connected)),
    ],
  ),
  gauge(
    "viommu_host_device_bound",
    "Whether a VMM has bound the endpoint's device of the host.",
    (context) => hostDevices(context, ({ bound }) => Number(bound)),
  ),
  gauge(
    "viommu_host_device_blocked",
    "Whether the endpoint's device of the host is blocked.",
    (context) => hostDevices(context, ({ attachedTo }) => Number(attachedTo === "blocked")),
  ),
  counter(
    "viommu_endpoint_requests",
    "Requests that the endpoint's device has answered.",
    (context) => served(context, ({ device }) => device.counters.requests),
  ),
  counter(
    "viommu_endpoint_read_bytes",
    "Bytes of guest memory that the endpoint has read.",
    (context) => served(context, ({ device }) => device.counters.readBytes),
    "bytes",
  ),
  counter(
    "viommu_endpoint_written_bytes",
    "Bytes of guest memory that the endpoint has written.",
    (context) => served(context, ({ device }) => device.counters.writtenBytes),
    "bytes",
  ),
  counter("viommu_endpoint_faults", "Accesses of the endpoint that were refused.", (context) => [
    ...served(context, ({ faults }) => faults),
    ...proxies(context, ({ counters }) => counters.faults),
  ]),
  counter(
    "viommu_iotlb_hits",
    "Translations that were in the endpoint's IOTLB.",
    (context) => served(context, ({ iotlbHits }) => iotlbHits),
  ),
  counter(
    "viommu_iotlb_misses",
    "Translations for which the endpoint's tables were walked.",
    (context) => [
      ...served(context, ({ iotlbMisses }) => iotlbMisses),
      ...proxies(context, ({ counters }) => counters.misses),
    ],
  ),
  counter(
    "viommu_proxy_invalidations",
    "Invalidations sent to a back end that translates itself.",
    (context) => proxies(context, ({ counters }) => counters.invalidations),
  ),
  counter(
    "viommu_proxy_waits",
    "Times that answers to the guest began to wait for the back end.",
    (context) => proxies(context, ({ counters }) => counters.waits),
  ),
  counter(
    "viommu_proxy_timeouts",
    "Times that the back end was cut off: it did not acknowledge.",
    (context) => proxies(context, ({ counters }) => counters.timeouts),
  ),
  gauge(
    "viommu_proxy_acknowledge_median_seconds",
    "From an invalidation to its acknowledgement, of the last 256.",
    (context) => proxies(context, ({ counters }) => counters.times.quantile(0.5) / 1e6),
    "seconds",
  ),
  gauge(
    "viommu_proxy_acknowledge_longest_seconds",
    "The longest from an invalidation to its acknowledgement.",
    (context) => proxies(context, ({ counters }) => counters.times.longest / 1e6),
    "seconds",
  ),
  gauge(
    "viommu_relay_in_flight",
    "Requests that the back end has.",
    (context) => relays(context, ({ inFlight }) => inFlight),
  ),
  gauge(
    "viommu_relay_pool_used_bytes",
    "Buffers that are in use.",
    (context) => relays(context, ({ poolUsed }) => poolUsed),
    "bytes",
  ),
  gauge(
    "viommu_relay_pool_size_bytes",
    "Buffers that there may be.",
    (context) => relays(context, ({ poolSize }) => poolSize),
    "bytes",
  ),
  counter(
    "viommu_relay_reconnects",
    "Times that the back end was connected anew.",
    (context) => relays(context, ({ reconnects }) => reconnects),
  ),
  counter(
    "viommu_relay_late_dropped",
    "Requests whose data came when the guest had unmapped its place.",
    (context) => relays(context, ({ lateDropped }) => lateDropped),
  ),
  counter(
    "viommu_relay_violations",
    "Times that the back end was cut off: it broke the protocol.",
    (context) => relays(context, ({ violations }) => violations),
  ),
  counter(
    "viommu_relay_timeouts",
    "Times that the back end was cut off: it did not answer.",
    (context) => relays(context, ({ timeouts }) => timeouts),
  ),
];

function gauge(
  name: string,
  help: string,
  samples: MetricFamily["samples"],
  unit?: MetricFamily["unit"],
): MetricFamily {
  return { name, type: "gauge", help, samples, ...(unit === undefined ? {} : { unit }) };
}

function counter(
  name: string,
  help: string,
  samples: MetricFamily["samples"],
  unit?: MetricFamily["unit"],
): MetricFamily {
  return { ...gauge(name, help, samples, unit), type: "counter" };
}

/** A value without labels. */
function only(value: number | boolean): readonly Sample[] {
  return [[{}, Number(value)]];
}

function mappedPages({ device }: ApiContext, work: Work): readonly Sample[] {
  let pages = 0;
  for (const id of device.iommu.domainIds) pages += device.iommu.domain(id)!.space.pageCount;
  work.add(device.iommu.domainCount >>> 5);
  return only(pages);
}

function attachedEndpoints({ device }: ApiContext, work: Work): readonly Sample[] {
  work.add(device.iommu.domainCount >>> 5);
  return only(device.iommu.attachedCount);
}

function* requests({ device }: ApiContext): Generator<Sample> {
  for (const [type, byStatus] of Object.entries(requestCounts(device.requests.counts))) {
    for (const [status, count] of Object.entries(byStatus)) yield [{ type, status }, count];
  }
}

/** One value for each device that this process serves, those that a relay does included. */
function* served(
  { services = [], relays = [] }: ApiContext,
  value: (service: EndpointService) => number,
): Generator<Sample> {
  for (const each of services) {
    yield [{ endpoint: endpointText(each.endpoint), kind: each.kind }, value(each)];
  }
  for (const { endpoint, service } of relays) {
    yield [{ endpoint: endpointText(endpoint), kind: "relay" }, value(service)];
  }
}

/** One value for each back end that translates for itself. */
function* proxies(
  { proxies = [] }: ApiContext,
  value: (proxy: EndpointProxy) => number,
): Generator<Sample> {
  for (const each of proxies) {
    yield [{ endpoint: endpointText(each.endpoint), kind: "proxy" }, value(each)];
  }
}

/** One value for each relay. */
function* relays(
  { relays = [] }: ApiContext,
  value: (state: EndpointRelayState) => number,
): Generator<Sample> {
  for (const each of relays) {
    yield [{ endpoint: endpointText(each.endpoint) }, value(relayState(each))];
  }
}

/** One value for each device of the host. */
function* hostDevices(
  { hostDevices: all = [] }: ApiContext,
  value: (state: HostDeviceState) => number,
): Generator<Sample> {
  for (const { endpoint, hostDevice } of all) {
    if (hostDevice === undefined) continue;
    yield [{ endpoint: endpointText(endpoint), device: hostDevice.address }, value(hostDevice)];
  }
}
