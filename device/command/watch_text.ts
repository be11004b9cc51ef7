/**
 * What `inspect watch` shows of a device: rates between two states of it.
 *
 * @module
 */
import { endpointText, sizeText } from "../address.ts";
import type { EndpointState, State } from "../api/mod.ts";

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

/** A whole screen: the IOMMU's requests, then a line for each endpoint. */
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
    line("ENDPOINT", TITLES),
    ...state.endpoints.map((endpoint) => endpointLine(before, now, endpoint)),
  ];
}

/** One line for each endpoint with a device, to be read one after another. */
export function watchLines(before: Sample, now: Sample): readonly string[] {
  const served = now.state.endpoints.filter((endpoint) => endpoint.device !== undefined);
  if (served.length === 0) return [requestRates(before, now)];
  return served.map((endpoint) => endpointLine(before, now, endpoint));
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
    return line(endpointText(endpoint.id), [...none, String(endpoint.faults)]);
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
  ]);
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
function line(first: string, columns: readonly string[]): string {
  return first.padEnd(8) + columns.map((text, i) => text.padStart(WIDTHS[i])).join(" ");
}
