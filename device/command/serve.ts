/**
 * `serve`: offers the device on a vhost-user socket until told to stop.
 *
 * @module
 */
import { type ApiAccess, type ApiContext, ApiServer, exportMetrics } from "../api/mod.ts";
import { parseNumber } from "../address.ts";
import {
  activatedListener,
  createMemoryFile,
  HostPages,
  inheritedSocket,
  LineWriter,
  mapMemoryFile,
  OsError,
  SharedMemory,
  type SocketAccess,
  UnixListener,
  type UnixStream,
} from "../host/mod.ts";
import type { ServedEndpoints } from "../endpoint/mod.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import { Log, LOG_LEVELS, type LogLevel } from "../log.ts";
import { memoryBound } from "../iommu/memory_bound.ts";
import { DeviceServer } from "../serving/device_server.ts";
import { VERSION } from "./version.ts";
import { RING_FEATURE_NAMES, type RingFeatures, ringFeatures } from "../vhost_user/mod.ts";
import type { Command } from "./command.ts";
import { DEVICE_OPTIONS, parseDeviceOptions } from "./device_options.ts";
import {
  ENDPOINT_DEFINITIONS,
  EndpointControl,
  openEndpoints,
  parseEndpointChoices,
} from "./endpoint_control.ts";
import { CommandError, UsageError } from "./errors.ts";
import { openDevice } from "./open_device.ts";
import { SOCKET_PATH } from "./option_parts.ts";
import { type OptionValues, parsedOption } from "./options.ts";
import { RejectionLog, StopSignals } from "./process_events.ts";
import { qemuArguments } from "./qemu_arguments.ts";
import { apiSocketAccess, SOCKET_OPTIONS, socketAccess } from "./socket_options.ts";

/** Microseconds for which the rings are watched after a request, unless `--poll-us` says otherwise. */
const DEFAULT_POLL_US = 2000;
/**
 * What rings may be unless `--rings` says otherwise: what gets a guest that spins through its driver quickest.
 * In a packed ring a request and its answer are in one cache line, in a split ring in four or five that go from
 * processor to processor: a round trip between two processes took 0.69 µs with the one and 0.79 with the other.
 * Used in order they give the guest's driver less to do: 14.9 µs for a VFIO map, 15.4 otherwise, 15.6 with a split
 * ring. Indirect tables it would have to allocate for each request, whose two descriptors fit a ring as they are.
 */
const DEFAULT_RINGS = "packed,event-index,in-order";

/** Milliseconds that the last log lines have to be written. */
const LAST_LINES_MS = 1000;
const STANDARD_ERROR = 2;

/** Serves the device. */
export const serve: Command = {
  name: "serve",
  summary: "offer the device to a VMM on a vhost-user socket",
  usage: ["--socket-path PATH [options]", "--connect PATH [options]", "--fd N [options]"],
  description: `Offers a virtio-iommu (virtio device 23) to one VMM after another. What to give to
    QEMU is printed at the start. SIGTERM, SIGINT and SIGHUP end it and remove its sockets.`,
  options: [{
    title: "Where (without any of the first three: the socket that LISTEN_FDS passes)",
    options: [{
      name: "socket-path",
      value: "PATH",
      help: "listen on a unix socket",
    }, {
      name: "connect",
      value: "PATH",
      help: "connect to a VMM that listens there, again whenever it has gone",
    }, {
      name: "fd",
      value: "N",
      help: "serve the connected or listening socket that was inherited as N",
    }, {
      name: "api-socket",
      value: "PATH",
      help: 'HTTP and JSON about the live state, for "inspect"',
    }, {
      name: "api-access",
      value: "read|full",
      help:
        "what its clients may do: look (read), or read and write guest memory as an endpoint, and add and " +
        "remove devices behind the IOMMU, too (default read)",
    }, ...SOCKET_OPTIONS],
  }, {
    title: "The device",
    options: DEVICE_OPTIONS,
  }, {
    title: "Devices behind it",
    options: ENDPOINT_DEFINITIONS,
  }, {
    title: "Other",
    options: [{
      name: "poll-us",
      value: "N",
      help:
        "microseconds for which the rings are watched after a request before sleeping; 0 sleeps at once, which " +
        `costs a guest some 100 us a request (default ${DEFAULT_POLL_US})`,
    }, {
      name: "rings",
      value: "FEATURES",
      help:
        `what the IOMMU's rings may be, of ${
          RING_FEATURE_NAMES.join(", ")
        }, with commas between them, or none ` +
        `(default ${DEFAULT_RINGS})`,
    }, {
      name: "frames",
      value: "guest|host",
      help:
        "what tables hold: guest-physical addresses, or the host-physical ones behind them, as a table for real " +
        "hardware does; host needs root (CAP_SYS_ADMIN), see docs/frames.md (default guest)",
    }, {
      name: "allow-file-memory",
      help:
        "take guest memory in a file of any file system, not only a memfd or a file on tmpfs or hugetlbfs. One " +
        "that does not answer (FUSE, a network) then stops everything for as long, SIGKILL included",
    }, {
      name: "log-level",
      value: LOG_LEVELS.join("|"),
      help: "how much is logged (default info)",
    }, {
      name: "print-capabilities",
      help: "what this back end is, as JSON, and exit",
    }],
  }],
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
    const level = parsedOption(values, "log-level", parseLogLevel, LOG_LEVELS.join(", "));
    const pollUs = parsedOption(
      values,
      "poll-us",
      (text) => parseNumber(text, 1_000_000),
      "microseconds from 0 to 1000000",
    ) ?? DEFAULT_POLL_US;
    const rings = parsedOption(
      values,
      "rings",
      parseRings,
      `none, or a list of ${RING_FEATURE_NAMES.join(", ")}`,
    ) ?? parseRings(DEFAULT_RINGS)!;
    const frames = parsedOption(values, "frames", parseFrames, "guest or host") ?? "guest";
    checkSocketChoice(values);
    const access = socketAccess(values);
    const api = apiChoice(values);
    const options = parseDeviceOptions(values);
    const choices = parseEndpointChoices(values);
    SharedMemory.allowsAnyFile = values["allow-file-memory"] === true;
    const lines = new LineWriter(STANDARD_ERROR);
    const log = new Log(level, (line) => lines.write(line));
    // From here on a signal ends it in order, before there is a socket to be left behind.
    using stop = new StopSignals();
    using _rejections = new RejectionLog(log);
    try {
      using tables = shareTableMemory(options.maxTableMemory);
      using hostMemory = frames === "host" ? openHostPages(log) : undefined;
      const deviceOptions = {
        ...options,
        tableMemory: tables.buffer,
        ...(hostMemory === undefined ? {} : { hostMemory }),
      };
      const device = await openDevice(deviceOptions, rings, log);
      const mebibytes = Math.ceil(memoryBound(deviceOptions) / 2 ** 20);
      log.debug(
        `A guest can make this process take at most ${mebibytes} MiB more ` +
          "(--max-domains, --max-mappings, --max-table-memory)",
      );
      if (!stop.isAsked) {
        const socket = openSocket(values, access);
        if (socket instanceof UnixListener && socket.path !== undefined) {
          log.info(`Listening on ${socket.path}; for QEMU 10.2 or later on x86:`);
          for (const line of qemuArguments(socket.path)) log.info(`  ${line}`);
        }
        let endpoints: ServedEndpoints;
        try {
          endpoints = openEndpoints(choices, device, log, access);
        } catch (error) {
          if (typeof socket !== "string") socket.close();
          throw error;
        }
        for (const line of choices.flatMap((each) => each.qemuArguments)) log.info(`  ${line}`);
        const parts = { device, endpoints, socket, api };
        await serveUntilStopped(parts, { log, pollUs, rings, access }, stop);
      }
      // What is mapped is not undone one by one, which takes a second for each million: nothing outlives the process
      // but back ends of other programs, and those were told, and disconnected, when the sessions ended.
      log.debug(`${device.iommu.mappingCount} mappings end with the process`);
    } finally {
      await lines.flush(LAST_LINES_MS);
      lines.close();
    }
    return 0;
  },
};

/** What is served. */
interface ServedParts {
  readonly device: IommuDevice;
  readonly endpoints: ServedEndpoints;
  readonly socket: UnixListener | UnixStream | string;
  readonly api: ApiChoice | undefined;
}

/** How it is served. */
interface ServeOptions {
  readonly log: Log;
  readonly pollUs: number;
  readonly rings: RingFeatures;
  /** Who may connect to the sockets of what is added behind the IOMMU. */
  readonly access: SocketAccess;
}

/** Serves until SIGINT, SIGTERM, or the end of an inherited connection. */
async function serveUntilStopped(
  { device, endpoints, socket, api: apiChoice }: ServedParts,
  { log, pollUs, rings, access }: ServeOptions,
  stop: StopSignals,
): Promise<void> {
  let server: DeviceServer | undefined;
  const own = socket instanceof UnixListener ? socket.path : undefined;
  const otherSockets = [own, apiChoice?.path].filter((path) => path !== undefined);
  const context: ApiContext = {
    device,
    get services() {
      return endpoints.services;
    },
    get proxies() {
      return endpoints.proxies;
    },
    get relays() {
      return endpoints.relays;
    },
    changes: new EndpointControl({ endpoints, iommu: device, log, access, otherSockets }),
    version: VERSION,
    access: apiChoice?.access ?? "read",
    get connected() {
      return server?.connected ?? false;
    },
    get failures() {
      return server?.failures ?? {};
    },
  };
  if (exportMetrics(context)) log.info("Exporting metrics by OpenTelemetry");
  try {
    const api = apiChoice === undefined ? [] : [openApi(apiChoice, context, log)];
    server = new DeviceServer(device, log, pollUs, [endpoints, ...api], rings);
    stop.onStop(() => server?.stop());
    await (typeof socket === "string" ? server.runClient(socket) : server.run(socket));
  } finally {
    // Where serving has not begun, these are still open.
    endpoints.close();
    if (typeof socket !== "string") socket.close();
  }
}

/** At most one way to a front end can be given; without any, socket activation must have passed one. */
function checkSocketChoice(values: OptionValues): void {
  const given = ["socket-path", "connect", "fd"].filter((name) => values[name] !== undefined);
  if (given.length > 1) {
    throw new UsageError(
      `Cannot serve with both --${given[0]} and --${given[1]}: give one of them`,
    );
  }
}

/**
 * Memory for the tables that could be handed to another process: a memory file, which takes up memory only
 * where tables are.
 */
function shareTableMemory(size: number): SharedMemory {
  using file = createMemoryFile("viommu-tables", size);
  return mapMemoryFile(file, 0, size);
}

/** What tells host frames, or one line that says why it cannot. */
function openHostPages(log: Log): HostPages {
  const pages = HostPages.open();
  if (typeof pages === "string") throw new CommandError(`Cannot serve --frames host: ${pages}`);
  pages.onRefused = (line) => log.warn(line);
  return pages;
}

/** The path of a socket that an option names. */
function socketPath(values: OptionValues, name: string): string | undefined {
  return parsedOption(values, name, SOCKET_PATH.read, SOCKET_PATH.form);
}

/** The socket that the options name, or the path to connect to. */
function openSocket(
  values: OptionValues,
  access: SocketAccess,
): UnixListener | UnixStream | string {
  const path = socketPath(values, "socket-path");
  if (path !== undefined) return listen(path, access);
  const peer = socketPath(values, "connect");
  if (peer !== undefined) return peer;
  if (values["fd"] === undefined) return openActivated();
  const fd = parsedOption(
    values,
    "fd",
    (text) => parseNumber(text, 2 ** 31 - 1),
    "the number of an inherited descriptor",
  )!;
  try {
    return inheritedSocket(fd);
  } catch (error) {
    if (error instanceof RangeError || error instanceof OsError) {
      throw new UsageError(`Cannot take --fd ${fd}: ${error.message}`);
    }
    throw error;
  }
}

/** Listens at a path, or says in one line why that cannot be. */
function listen(path: string, access: SocketAccess): UnixListener {
  try {
    return UnixListener.listen(path, access);
  } catch (error) {
    if (error instanceof RangeError) throw new CommandError(error.message);
    throw error;
  }
}

/** The listening socket of socket activation. */
function openActivated(): UnixListener {
  let listener: UnixListener | undefined;
  try {
    listener = activatedListener({
      count: variable("LISTEN_FDS"),
      process: variable("LISTEN_PID"),
    });
  } catch (error) {
    if (error instanceof RangeError) throw new UsageError(error.message);
    throw error;
  }
  if (listener === undefined) {
    throw new UsageError(
      "Cannot serve without --socket-path PATH, --connect PATH or --fd N: give one of them",
    );
  }
  return listener;
}

/** A variable of the environment, where looking is allowed. */
function variable(name: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable: name });
  return state === "granted" ? Deno.env.get(name) : undefined;
}

/** What was chosen about the API socket. */
interface ApiChoice {
  readonly path: string;
  readonly access: ApiAccess;
  readonly socket: SocketAccess;
}

/** The API socket that was asked for, if one was. */
function apiChoice(values: OptionValues): ApiChoice | undefined {
  const access = parsedOption(values, "api-access", parseApiAccess, "read or full") ?? "read";
  const socket = apiSocketAccess(values);
  const path = socketPath(values, "api-socket");
  if (path !== undefined) return { path, access, socket };
  const name = ["api-access", "api-socket-mode", "api-socket-group"].find((option) =>
    values[option] !== undefined
  );
  if (name === undefined) return undefined;
  throw new UsageError(`Cannot take --${name} without --api-socket PATH`);
}

/** What clients of the API may do. */
function parseApiAccess(text: string): ApiAccess | undefined {
  return text === "read" || text === "full" ? text : undefined;
}

/** The API socket. */
function openApi({ path, socket }: ApiChoice, context: ApiContext, log: Log): ApiServer {
  return new ApiServer(listen(path, socket), context, log);
}

/** A list of ring features, or none. */
function parseRings(text: string): RingFeatures | undefined {
  return ringFeatures(text === "none" ? [] : text.split(","));
}

/** What tables hold. */
function parseFrames(text: string): "guest" | "host" | undefined {
  return text === "guest" || text === "host" ? text : undefined;
}

/** One of the levels. */
function parseLogLevel(text: string): LogLevel | undefined {
  return LOG_LEVELS.find((level) => level === text);
}
