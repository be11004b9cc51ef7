/** `serve`: offers the device on a vhost-user socket until told to stop. */
import { ApiServer, exportMetrics } from "../api/mod.ts";
import { HostPages, LineWriter, SharedMemory, UnixListener, type UnixStream } from "../host/mod.ts";
import type { HostDeviceOpener, ServedEndpoints } from "../endpoint/mod.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import { Log, oneLine } from "../log.ts";
import { memoryBound } from "../iommu/memory_bound.ts";
import { DeviceServer } from "../serving/device_server.ts";
import type { PollSource } from "../poll_source.ts";
import type { Sandbox } from "../sandbox/mod.ts";
import { HostDevices } from "../vfio/mod.ts";
import type { Command } from "./command.ts";
import { InheritedDescriptors } from "./descriptor_source.ts";
import { EndpointControl, openEndpoints } from "./endpoint_control.ts";
import { CommandError } from "./errors.ts";
import { listen, openFrontEnd } from "./front_end_socket.ts";
import { LiveState } from "./live_state.ts";
import { makeDevice, prepare } from "./open_device.ts";
import { RejectionLog, StopSignals } from "./process_events.ts";
import { qemuEndpoints } from "./qemu_arguments.ts";
import { Recording } from "./record_option.ts";
import { parseServeOptions, SERVE_OPTIONS, type ServeChoices } from "./serve_options.ts";
import { confine, sandboxState, servePolicy } from "./serve_sandbox.ts";
import { guestCommands, shareTableMemory, traceEvents } from "./serving_parts.ts";
import { supervise } from "./supervise.ts";

/** Milliseconds that the last log lines have to be written. */
const LAST_LINES_MS = 1000;
const STANDARD_ERROR = 2;
/** Ranges that a device of the host may reserve: one for interrupts, and few more for what firmware uses it for. */
const HOST_RANGES = 8;

/** Serves the device. */
export const serve: Command = {
  name: "serve",
  summary: "offer the device to a VMM on a vhost-user socket",
  usage: ["--socket-path PATH [options]", "--connect PATH [options]", "--fd N [options]"],
  description: `Offers a virtio-iommu (virtio device 23) to one VMM after another. What to give to
    QEMU is printed at the start. SIGTERM, SIGINT and SIGHUP end it and remove its sockets;
    with --supervise, SIGHUP replaces the process that serves by one of the version on disk.`,
  options: SERVE_OPTIONS,
  ending: `
Exit codes: 0 ended as asked, 1 failed while running, 2 wrong arguments.

Example:
  viommu serve --socket-path /run/viommu.sock --api-socket /run/viommu-api.sock
`,
  // "Other options and arguments should be ignored" (vhost-user.rst, "Backend program conventions").
  printing: {
    option: "--print-capabilities",
    text: () => JSON.stringify({ type: "iommu", features: [] }),
  },
  async run({ values }) {
    const choices = parseServeOptions(values);
    SharedMemory.allowsAnyFile = choices.allowsFileMemory;
    SharedMemory.keepsFiles = mayPassDevices(choices);
    const lines = new LineWriter(STANDARD_ERROR);
    const log = new Log(choices.level, (line) => lines.write(line));
    // Without a prefix, so that they can be pasted.
    function print(all: readonly string[]): void {
      if (log.enabled("info")) all.forEach((line) => lines.write(oneLine(line)));
    }
    // From here on a signal ends it in order, before there is a socket to be left behind.
    using stop = new StopSignals(choices.supervise ? ["SIGHUP"] : []);
    using _rejections = new RejectionLog(log);
    try {
      if (choices.supervise) return await supervise(choices, { log, print, stop });
      await serveDevice(choices, { log, print, stop });
    } finally {
      await lines.flush(LAST_LINES_MS);
      lines.close();
    }
    return 0;
  },
};

/**
 * Whether devices of the host are passed through, now or later: the kernel maps guest memory for them by its files, and the
 * answers to PROBE need room for what they reserve.
 */
function mayPassDevices({ endpoints, api }: ServeChoices): boolean {
  return api?.access === "full" || endpoints.some((each) => each.isHostDevice === true);
}

/** What a serving process has besides the device. */
interface ProcessParts {
  readonly log: Log;
  /** Prints lines as they are, where log lines go. */
  readonly print: (lines: readonly string[]) => void;
  readonly stop: StopSignals;
}

/** Makes the device and its sockets, and serves until stopped. Whatever fails, no socket is left. */
async function serveDevice(choices: ServeChoices, process: ProcessParts): Promise<void> {
  const { log, stop } = process;
  using tables = shareTableMemory(choices.device.maxTableMemory);
  using hostMemory = choices.frames === "host" ? openHostPages(log) : undefined;
  const options = {
    ...choices.device,
    tableMemory: tables.buffer,
    ...(hostMemory === undefined ? {} : { hostMemory }),
    ...(mayPassDevices(choices) ? { maxHostRanges: HOST_RANGES } : {}),
  };
  await using recording = choices.record === undefined
    ? undefined
    : new Recording(choices.record, options);
  const device = recording?.device ?? makeDevice(options);
  const mebibytes = Math.ceil(memoryBound(options) / 2 ** 20);
  log.debug(
    `A guest can make this process take at most ${mebibytes} MiB more ` +
      "(--max-domains, --max-mappings, --max-table-memory)",
  );
  using opened = new DisposableStack();
  const parts = openParts(choices, device, process, opened);
  await recording?.start(log);
  // A VMM that connects meanwhile waits in the queue of the socket.
  if (choices.warmsUp) await prepare(options, choices.rings, log);
  if (!stop.isAsked) await serveUntilStopped(parts, choices, log, stop);
  // What is mapped is not undone one by one, which takes a second for each million: nothing outlives the process
  // but back ends of other programs, and those were told, and disconnected, when the sessions ended.
  log.debug(`${device.iommu.mappingCount} mappings end with the process`);
}

/** Opens every socket. */
function openParts(
  { frontEnd, access, endpoints: choices, api }: ServeChoices,
  device: IommuDevice,
  { log, print }: ProcessParts,
  opened: DisposableStack,
): ServedParts {
  const socket = openFrontEnd(frontEnd, access);
  if (typeof socket !== "string") opened.defer(() => socket.close());
  const descriptors = new InheritedDescriptors();
  const hostDevices = new HostDevices(log);
  const endpoints = opened.adopt(
    openEndpoints(choices, { iommu: device, log, access, descriptors, hostDevices }),
    (all) => all.close(),
  );
  const qemu = qemuEndpoints(choices);
  if (socket instanceof UnixListener && socket.path !== undefined) {
    log.info(`Listening on ${socket.path}; for QEMU 10.2 or later:`);
    print(guestCommands(socket.path, qemu));
  } else {
    print([...qemu.endpoints, ...qemu.hostDevices]);
  }
  if (api === undefined) return { device, endpoints, hostDevices, socket, api: undefined };
  const listener = opened.adopt(listen(api.path, api.socket), (each) => each.close());
  return { device, endpoints, hostDevices, socket, api: listener };
}

/** What is served. */
interface ServedParts {
  readonly device: IommuDevice;
  readonly endpoints: ServedEndpoints;
  readonly hostDevices: HostDeviceOpener;
  readonly socket: UnixListener | UnixStream | string;
  readonly api: UnixListener | undefined;
}

/** Serves until SIGINT, SIGTERM, SIGHUP, or the end of an inherited connection. */
async function serveUntilStopped(
  { device, endpoints, hostDevices, socket, api }: ServedParts,
  choices: ServeChoices,
  log: Log,
  stop: StopSignals,
): Promise<void> {
  const { pollUs, rings, access, api: apiChoice } = choices;
  const own = socket instanceof UnixListener ? socket.path : undefined;
  const otherSockets = [own, api?.path].filter((path) => path !== undefined);
  const context = new LiveState({
    device,
    endpoints,
    changes: new EndpointControl({
      ...{ endpoints, iommu: device, log, access, hostDevices, otherSockets },
      isConfined: choices.sandbox !== "off",
    }),
    access: apiChoice?.access,
    server: () => server,
    sandbox: () => sandboxState(choices.sandbox, sandbox),
  });
  const usesNetwork = exportMetrics(context);
  if (usesNetwork) log.info("Exporting metrics by OpenTelemetry");
  // Entered before the first front end is accepted; from here on only paths that the options name can be opened.
  const sandbox: Sandbox | undefined = confine(
    choices.sandbox,
    servePolicy(choices, usesNetwork),
    log,
  );
  const sources: PollSource[] = api === undefined ? [] : [new ApiServer(api, context, log)];
  if (sandbox?.refusals !== undefined) sources.push(sandbox.refusals.source(log));
  const server: DeviceServer = new DeviceServer(
    device,
    log,
    pollUs,
    [endpoints, ...sources],
    rings,
  );
  server.onFrontEnd = (stream) => endpoints.frontEndChanged(stream);
  stop.onStop(() => server.stop());
  device.hosts.onWarning = (line) => log.warnLimited("hosts", line);
  if (log.enabled("trace")) traceEvents(device, log);
  await (typeof socket === "string" ? server.runClient(socket) : server.run(socket));
}

/** What tells host frames, or one line that says why it cannot. */
function openHostPages(log: Log): HostPages {
  const pages = HostPages.open();
  if (typeof pages === "string") throw new CommandError(`Cannot serve --frames host: ${pages}`);
  pages.onRefused = (line) => log.warn(line);
  return pages;
}
