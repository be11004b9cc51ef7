/** What `inspect watch` shows of a device: rates between two states of it. */
import { endpointText, sizeText } from "../address.ts";
import type { EndpointRelayState, EndpointState, State } from "../api/mod.ts";

/** A state and when it was, in milliseconds of any clock. */
export interface Sample {
  /** What the API socket answered. */
  readonly state: State;
  /** When. */
  readonly time: number;
}

/** Widths of the columns behind the endpoint. */
const WIDTHS = [7, 8, 10, 9, 11, 11, 9, 10, 8] as const;
/** Their names. */
const TITLES = [
  "DEVICE",
  "DOMAIN",
  "FORMAT",
  "REQ/S",
  "READ/S",
  "WRITTEN/S",
  "HITS",
  "MISSES/S",
  "FAULTS",
] as const;
/** The same of the table of relays. */
const RELAY_WIDTHS = [8, 11, 10, 9, 11, 7, 7, 11, 9, 9] as const;
const RELAY_TITLES = [
  "CHAINS/S",
  "BACK END/S",
  "GUEST/S",
  "IN FLIGHT",
  "POOL",
  "LATE",
  "FAULTS",
  "RECONNECTS",
  "MEDIAN",
  "P99",
] as const;

/** A whole screen: the IOMMU's requests, a line for each endpoint, then a line for each relay. */
export function watchScreen(before: Sample, now: Sample): readonly string[] {
  const { state } = now;
  const mappings = state.domains.reduce((sum, domain) => sum + domain.mappings, 0);
  const pages = state.domains.reduce((sum, domain) => sum + domain.pages, 0);
  return [
    `viommu ${state.version}, ${state.connected ? "a VMM is connected" : "no VMM is connected"}`,
    `${state.domains.length} domains, ${mappings} mappings of ${pages} pages, ` +
    `${state.faults.reported} faults reported, ${state.faults.dropped} dropped`,
    requestRates(before, now),
    "",
    line("ENDPOINT", TITLES, WIDTHS),
    ...state.endpoints.map((endpoint) => endpointLine(before, now, endpoint)),
    ...relayTable(before, now),
  ];
}

/** One line for each endpoint with a device, two where that is a relay, to be read one after another. */
export function watchLines(before: Sample, now: Sample): readonly string[] {
  const served = now.state.endpoints.filter((endpoint) => endpoint.device !== undefined);
  if (served.length === 0) return [requestRates(before, now)];
  return served.flatMap((endpoint) => [
    endpointLine(before, now, endpoint),
    ...(endpoint.relay === undefined ? [] : [relaySentence(before, now, endpoint, endpoint.relay)]),
  ]);
}

/** `MAP 1200/s, UNMAP 1190/s`. */
function requestRates(before: Sample, now: Sample): string {
  const rates = Object.entries(now.state.requests).map(([type, statuses]) => {
    const earlier = before.state.requests[type] ?? {};
    return `${type} ${rate(before, now, total(earlier), total(statuses))}/s`;
  });
  return rates.length === 0 ? "no requests yet" : rates.join(", ");
}

function endpointLine(before: Sample, now: Sample, endpoint: EndpointState): string {
  const { device } = endpoint;
  const earlier = before.state.endpoints.find(({ id }) => id === endpoint.id)?.device;
  const nowhere = endpoint.blocked ? "blocked" : "-";
  const domain = endpoint.domain === null ? nowhere : String(endpoint.domain);
  if (device === undefined) {
    const none = ["-", domain, endpoint.format, "-", "-", "-", "-", "-"];
    return line(endpointText(endpoint.id), [...none, String(endpoint.faults)], WIDTHS);
  }
  const looked = device.iotlbHits + device.iotlbMisses;
  return line(endpointText(endpoint.id), [
    device.connected ? device.type : `(${device.type})`,
    domain,
    endpoint.format,
    String(rate(before, now, earlier?.requests ?? 0, device.requests)),
    bytesText(rate(before, now, earlier?.readBytes ?? 0, device.readBytes)),
    bytesText(rate(before, now, earlier?.writtenBytes ?? 0, device.writtenBytes)),
    looked === 0 ? "-" : `${Math.round(100 * device.iotlbHits / looked)} %`,
    String(rate(before, now, earlier?.iotlbMisses ?? 0, device.iotlbMisses)),
    String(device.faults),
  ], WIDTHS);
}

/** The relays with titles above them, or nothing where there are none. Bytes are those to the back end and to the guest. */
function relayTable(before: Sample, now: Sample): readonly string[] {
  const lines = now.state.endpoints.flatMap((endpoint) => {
    const { id, relay } = endpoint;
    if (relay === undefined) return [];
    const { chains, toBackEnd, toGuest } = relayRates(before, now, endpoint, relay);
    return [
      line(endpointText(id), [
        relay.connected ? chains : `(${chains})`,
        toBackEnd,
        toGuest,
        String(relay.inFlight),
        `${poolPercent(relay)} %`,
        String(relay.lateDropped),
        String(endpoint.device?.faults ?? endpoint.faults),
        String(relay.reconnects),
        timeText(relay.medianMicroseconds),
        timeText(relay.p99Microseconds),
      ], RELAY_WIDTHS),
    ];
  });
  return lines.length === 0 ? [] : ["", line("RELAY", RELAY_TITLES, RELAY_WIDTHS), ...lines];
}

/** The same of one relay, with words in place of titles. */
function relaySentence(
  before: Sample,
  now: Sample,
  endpoint: EndpointState,
  relay: EndpointRelayState,
): string {
  const { chains, toBackEnd, toGuest } = relayRates(before, now, endpoint, relay);
  return `${endpointText(endpoint.id)} ${chains} chains/s, ${toBackEnd}/s to the back end, ` +
    `${toGuest}/s to the guest, ${relay.inFlight} in flight, pool ${poolPercent(relay)} %, ` +
    `${relay.lateDropped} late, ${endpoint.device?.faults ?? endpoint.faults} faults, ` +
    `${relay.reconnects} reconnects, ${timeText(relay.medianMicroseconds)} in the back end ` +
    `(p99 ${timeText(relay.p99Microseconds)})` +
    (relay.connected ? "" : "; no back end is connected");
}

function relayRates(
  before: Sample,
  now: Sample,
  { id }: EndpointState,
  relay: EndpointRelayState,
): { readonly chains: string; readonly toBackEnd: string; readonly toGuest: string } {
  const earlier = before.state.endpoints.find((each) => each.id === id)?.relay;
  return {
    chains: String(rate(before, now, earlier?.chains ?? 0, relay.chains)),
    toBackEnd: bytesText(rate(before, now, earlier?.toBackEnd ?? 0, relay.toBackEnd)),
    toGuest: bytesText(rate(before, now, earlier?.toGuest ?? 0, relay.toGuest)),
  };
}

function poolPercent({ poolUsed, poolSize }: EndpointRelayState): number {
  return Math.round(100 * poolUsed / poolSize);
}

/** Microseconds, in milliseconds where there are many. */
function timeText(microseconds: number): string {
  return microseconds < 10_000 ? `${microseconds} us` : `${Math.round(microseconds / 1000)} ms`;
}

/** What a count grew by in a second. A count that shrank was started anew. */
function rate(before: Sample, now: Sample, from: number, to: number): number {
  const seconds = (now.time - before.time) / 1000;
  return seconds <= 0 ? 0 : Math.round(Math.max(0, to - from) / seconds);
}

function total(statuses: Readonly<Record<string, number>>): number {
  return Object.values(statuses).reduce((sum, count) => sum + count, 0);
}

/** Bytes to three digits, such as `12.3M`. */
function bytesText(bytes: number): string {
  if (bytes < 1024) return sizeText(bytes);
  const unit = Math.min(4, Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 1024 ** unit;
  return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)}${["", "K", "M", "G", "T"][unit]}`;
}

/** A line of the table: the first column to the left, the others to the right. */
function line(
  first: string,
  columns: readonly string[],
  widths: readonly number[],
): string {
  return first.padEnd(8) + columns.map((text, i) => text.padStart(widths[i])).join(" ");
}
