/** The answers of the API socket as text for people. */
import { type DescribedEntry, pathLines } from "../../pagetable/mod.ts";
import { endpointText, sizeText } from "../address.ts";
import type {
  DomainState,
  EndpointState,
  MappingState,
  MovedState,
  State,
  TranslateAnswer,
} from "../api/mod.ts";
import { hostDeviceText } from "./host_device_text.ts";

/** How many endpoints of a list are named before the rest is counted. */
const NAMED_ENDPOINTS = 8;

/** Plural of a counted noun. */
function counted(count: number, noun: string, plural = `${noun}s`): string {
  return `${count} ${count === 1 ? noun : plural}`;
}

/** The state of a device. */
export function stateText(state: State): string {
  const lines = [
    `viommu ${state.version}, ${state.connected ? "a VMM is connected" : "no VMM is connected"}`,
    `features  ${state.features.join(" ")}`,
    `bypass    ${state.bypass ? "on: unattached endpoints reach memory" : "off"}`,
    ...blockedLines(state),
    `faults    ${state.faults.reported} reported, ${state.faults.dropped} dropped`,
    ...failureLines(state),
    ...processLines(state),
    ...sandboxLines(state),
    "",
    ...requestLines(state),
    "",
    ...(state.domains.length === 0 ? ["no domains"] : state.domains.flatMap(domainLines)),
    ...state.endpoints.flatMap(deviceLines),
    ...state.endpoints.flatMap(proxyLines),
    ...state.endpoints.flatMap(relayLines),
    ...state.endpoints.flatMap(hostDeviceLines),
  ];
  return lines.join("\n");
}

/** Which endpoints are blocked because it is not known what the guest has attached. */
function blockedLines({ blocked, endpoints }: State): readonly string[] {
  if (blocked === undefined) return [];
  if (blocked === "all") {
    return [
      "blocked   all endpoints that the guest does not attach or detach: it has mappings unknown here",
    ];
  }
  const ids = endpoints.filter((endpoint) => endpoint.blocked).map(({ id }) => id);
  return [`blocked   ${namedEndpoints(ids)}: attached when the connection ended`];
}

/** Which process serves, where another one holds its session, and how that one's predecessors ended. */
function processLines({ process }: State): readonly string[] {
  if (process === undefined) return [];
  const { pid, generation, startedAt, spare, deaths, lastDeath, pauses } = process;
  const end = lastDeath === null
    ? ""
    : `, the last ${lastDeath.at}` + (lastDeath.signal === undefined
      ? lastDeath.code === undefined ? "" : ` (exit code ${lastDeath.code})`
      : ` (signal ${lastDeath.signal})`);
  return [
    `process   ${pid}, number ${generation}, since ${startedAt}, ${
      spare ? "a" : "no"
    } spare is ready`,
    `deaths    ${deaths}${end}; ${pauses.count} pauses, ` +
    `median ${pauses.medianMilliseconds} ms, longest ${pauses.longestMilliseconds} ms`,
  ];
}

/** What is in force of the sandbox. */
function sandboxLines({ sandbox }: State): readonly string[] {
  if (sandbox === undefined) return [];
  if (sandbox.mode === "off") return ["sandbox   off"];
  const missing = Object.entries(sandbox.missing).map(([part, why]) => `no ${part} (${why})`);
  const refused = Object.entries(sandbox.refused).map(([name, count]) => `${name} ${count}`);
  return [
    `sandbox   ${[...sandbox.inForce, ...missing].join(", ")}`,
    ...(refused.length === 0
      ? []
      : [`refused   ${refused.join(", ")}: system calls of the process`]),
  ];
}

/** Whose sessions were ended because something failed on their behalf. */
function failureLines({ failures = {} }: State): readonly string[] {
  const entries = Object.entries(failures);
  if (entries.length === 0) return [];
  const counts = entries.map(([name, count]) => `${name} ${count}`).join(", ");
  return [`failures  ${counts}: sessions ended, the log says why`];
}

/** Some endpoints by name, and how many more there are. */
function namedEndpoints(endpoints: readonly number[]): string {
  const names = endpoints.slice(0, NAMED_ENDPOINTS).map(endpointText);
  const more = endpoints.length - names.length;
  return names.join(" ") + (more > 0 ? ` and ${more} more` : "");
}

/** Requests by type, with their statuses. */
function requestLines(state: State): readonly string[] {
  const entries = Object.entries(state.requests);
  if (entries.length === 0) return ["no requests yet"];
  return entries.map(([type, statuses]) =>
    `${type.padEnd(9)} ` +
    Object.entries(statuses).map(([status, count]) => `${count} ${status}`).join(", ")
  );
}

/** One domain with its tables. */
function domainLines(domain: DomainState): readonly string[] {
  const endpoints = namedEndpoints(domain.endpoints);
  if (domain.bypass) return [`domain ${domain.id}: bypass; endpoints ${endpoints}`];
  return [
    `domain ${domain.id}: ${counted(domain.mappings, "mapping")}, ` +
    `${counted(domain.pages, "page")}; endpoints ${endpoints}`,
    ...domain.tables.map((table) =>
      `  ${table.format}, ${table.levels} levels, root ${table.root}, ` +
      counted(table.tablePages, "table page")
    ),
  ];
}

/** What the device of an endpoint did, if this process serves one. */
function deviceLines({ id, device }: EndpointState): readonly string[] {
  if (device === undefined) return [];
  return [
    `${device.type} ${endpointText(id)}: ${counted(device.requests, "request")}, ` +
    `${device.readBytes} bytes read, ${device.writtenBytes} written, ` +
    `IOTLB ${device.iotlbHits} hits and ${device.iotlbMisses} misses, ` +
    `${counted(device.faults, "fault")}${device.connected ? "" : "; no VMM is connected to it"}`,
  ];
}

/** What was done for the back end of an endpoint, if this process translates for one. */
function proxyLines({ id, proxy }: EndpointState): readonly string[] {
  if (proxy === undefined) return [];
  const identity = proxy.identityUpdates === 0 ? "" : ` (${proxy.identityUpdates} the identity)`;
  const more = [
    ...(proxy.refused === 0 ? [] : [`${proxy.refused} refused`]),
    ...(proxy.timeouts === 0 ? [] : [counted(proxy.timeouts, "timeout")]),
    ...(proxy.connected ? [] : ["not connected"]),
  ];
  return [
    `proxy ${endpointText(id)}: ${counted(proxy.misses, "miss", "misses")}, ` +
    `${counted(proxy.updates, "update")}${identity}, ` +
    `${counted(proxy.invalidations, "invalidation")}, ${proxy.acknowledged} acknowledged ` +
    `in ${proxy.medianMicroseconds} us (median; longest ${proxy.longestMicroseconds}), ` +
    `${counted(proxy.waits, "wait")}, ${counted(proxy.faults, "fault")}` +
    more.map((text) => `; ${text}`).join(""),
  ];
}

/** The device of the host that an endpoint is, if it is one. */
function hostDeviceLines({ id, hostDevice }: EndpointState): readonly string[] {
  return hostDevice === undefined
    ? []
    : [`vfio ${endpointText(id)}: ${hostDeviceText(hostDevice)}`];
}

/** What passed through the relay of an endpoint, if this process has one. */
function relayLines({ id, relay }: EndpointState): readonly string[] {
  if (relay === undefined) return [];
  const counts = [
    [relay.resubmitted, "submitted again"],
    [relay.givenUp, "given up"],
    [relay.lateDropped, "dropped as late"],
    [relay.unreadable, "unreadable"],
    [relay.tooLong, "too long"],
    [relay.violations, "back ends cut off for a violation"],
    [relay.timeouts, "back ends cut off for silence"],
    [relay.messagesRefused, "messages refused"],
  ] as const;
  const more = [
    ...counts.filter(([count]) => count > 0).map(([count, text]) => `${count} ${text}`),
    ...(relay.connected ? [] : ["no back end is connected"]),
  ];
  return [
    `relay ${endpointText(id)}: ${counted(relay.chains, "chain")}, ` +
    `${relay.toBackEnd} bytes to the back end, ${relay.toGuest} to the guest, ` +
    `${relay.inFlight} in flight, ` +
    `pool ${sizeText(relay.poolUsed)} of ${sizeText(relay.poolSize)} ` +
    `(most ${sizeText(relay.poolPeak)}, ${counted(relay.stalls, "stall")}), ` +
    `${counted(relay.reconnects, "reconnect")}, ` +
    `${relay.medianMicroseconds} us in the back end (median; p99 ${relay.p99Microseconds}, ` +
    `longest ${relay.longestMicroseconds})` + more.map((text) => `; ${text}`).join(""),
  ];
}

/** A mapping as a line. */
export function mappingText({ domain, iova, last, phys, flags }: MappingState): string {
  return `domain ${domain}  ${iova}-${last} -> ${phys} ${flags}`;
}

/** A moved page as a line. */
export function movedText({ domain, iova, guest, phys, now }: MovedState): string {
  return `domain ${domain}  ${iova} -> ${phys}, guest-physical ${guest}: ` +
    (now === null ? "no frame now" : `now ${now}`);
}

/** A translation, with the entries that led to it. */
export function translationText(answer: TranslateAnswer): string {
  if ("fault" in answer) {
    const { fault: { reason, code }, format, path } = answer;
    return [`fault: ${reason} (${code}), ${format}`, ...indented(path)].join("\n");
  }
  const { guest, moved } = answer;
  return [
    `${answer.phys} ${answer.access}, ${sizeText(answer.pageSize)} page, ${answer.format}`,
    ...(guest === undefined ? [] : [`  host-physical; guest-physical ${guest}`]),
    ...(moved === undefined ? [] : [`  moved: the kernel has it at ${moved ?? "no frame"} now`]),
    ...indented(answer.path),
  ].join("\n");
}

/** The entries of a path, a line each. */
function indented(path: readonly DescribedEntry[]): readonly string[] {
  return pathLines(path).map((line) => `  ${line}`);
}
