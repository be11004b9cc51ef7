/** The options of `serve`, and what they say. */
import { parseNumber } from "../address.ts";
import type { ApiAccess } from "../api/mod.ts";
import type { SocketAccess } from "../host/mod.ts";
import type { DeviceOptions } from "../iommu/iommu_device.ts";
import { LOG_LEVELS, type LogLevel } from "../log.ts";
import { RING_FEATURE_NAMES, type RingFeatures, ringFeatures } from "../vhost_user/mod.ts";
import type { OptionGroup } from "./command.ts";
import { DEVICE_OPTIONS, parseDeviceOptions } from "./device_options.ts";
import type { EndpointChoice } from "./endpoint_choices.ts";
import { ENDPOINT_DEFINITIONS, parseEndpointChoices, TRACES_VMM } from "./endpoint_control.ts";
import { UsageError } from "./errors.ts";
import { SOCKET_PATH } from "./option_parts.ts";
import { type OptionValues, parsedOption, textOptions } from "./options.ts";
import { RECORD_DEFINITION, type RecordChoice, recordChoice } from "./record_option.ts";
import { apiSocketAccess, SOCKET_OPTIONS, socketAccess } from "./socket_options.ts";

/** Microseconds for which the rings are polled after a request, unless `--poll-us` says otherwise. */
const DEFAULT_POLL_US = 2000;
/**
 * What rings may be unless `--rings` says otherwise: what gets a guest that spins through its driver quickest.
 * In a packed ring a request and its answer are in one cache line, in a split ring in four or five that go from
 * processor to processor: a round trip between two processes took 0.69 µs with the one and 0.79 with the other.
 * Used in order they give the guest's driver less to do: 14.9 µs for a VFIO map, 15.4 otherwise, 15.6 with a split
 * ring. Indirect tables it would have to allocate for each request, whose two descriptors fit a ring as they are.
 */
const DEFAULT_RINGS = "packed,event-index,in-order";

/** Its options. */
export const SERVE_OPTIONS: readonly OptionGroup[] = [{
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
      "microseconds for which the rings are polled after a request before sleeping; 0 sleeps at once, which " +
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
    name: "warm-up",
    value: "on|off",
    help:
      "whether to run the path of a request before the first guest connects, so that it is compiled by then. That " +
      "takes a quarter of a second, but most of a minute on an emulated processor: there, off is better (default on)",
  }, {
    name: "frames",
    value: "guest|host",
    help:
      "what tables hold: guest-physical addresses, or the host-physical ones behind them, as a table for real " +
      "hardware does; host needs root (CAP_SYS_ADMIN), see docs/frames.md (default guest)",
  }, {
    name: "supervise",
    help:
      "serve in a process of its own, which another one takes the place of when it dies; the guest goes on",
  }, {
    name: "allow-file-memory",
    help:
      "take guest memory in a file of any file system, not only a memfd or a file on tmpfs or hugetlbfs. One " +
      "that does not answer (FUSE, a network) then stops everything for as long, SIGKILL included",
  }, {
    ...RECORD_DEFINITION,
  }, {
    name: "log-level",
    value: LOG_LEVELS.join("|"),
    help: "how much is logged (default info)",
  }, {
    name: "sandbox",
    value: "off|on|strict",
    help:
      "whether the process gives up, before it serves, what it does not need: files, programs, the network, system " +
      "calls, capabilities. What the kernel has not is left out, or an error with strict; see docs/sandbox.md " +
      "(default on)",
  }, {
    name: "sandbox-path",
    value: "PATH",
    help:
      "with --api-access full, a folder in which devices that are added may have their sockets and images, besides " +
      "the folders that other options name; can be repeated",
    repeats: true,
  }, {
    name: "print-capabilities",
    help: "what this back end is, as JSON, and exit",
  }],
}];

/** Modes of `--sandbox`. */
const SANDBOX_MODES = ["off", "on", "strict"] as const;
/** One of them. */
export type SandboxMode = typeof SANDBOX_MODES[number];

/** What the options say. */
export interface ServeChoices {
  /** The least important log lines that are written. */
  readonly level: LogLevel | undefined;
  /** Microseconds for which the rings are polled after a request. */
  readonly pollUs: number;
  /** What the rings may be. */
  readonly rings: RingFeatures;
  /** Whether to warm up before the first guest. */
  readonly warmsUp: boolean;
  /** What tables hold. */
  readonly frames: "guest" | "host";
  /** The way to the front end. */
  readonly frontEnd: FrontEndChoice;
  /** Which processes may connect to the vhost-user sockets. */
  readonly access: SocketAccess;
  /** The API socket, if there is to be one. */
  readonly api: ApiChoice | undefined;
  /** The device. */
  readonly device: DeviceOptions;
  /** What is behind it. */
  readonly endpoints: readonly EndpointChoice[];
  /** Whether to enter the sandbox, and whether all of it has to be there. */
  readonly sandbox: SandboxMode;
  /** Folders for what is added through the API later. */
  readonly sandboxPaths: readonly string[];
  /** Where what happens is recorded, if it is. */
  readonly record: RecordChoice | undefined;
  /** Whether guest memory may be in a file of any file system. */
  readonly allowsFileMemory: boolean;
  /** Whether another process takes the place of the one that serves when it dies. */
  readonly supervise: boolean;
}

/** The way to the front end: at most one of these. Without, socket activation passes a socket. */
export interface FrontEndChoice {
  /** Where to listen. */
  readonly listen: string | undefined;
  /** Where the front end listens. */
  readonly connect: string | undefined;
  /** An inherited descriptor. */
  readonly descriptor: number | undefined;
}

/** What was chosen about the API socket. */
export interface ApiChoice {
  /** Where it listens. */
  readonly path: string;
  /** What its clients may do. */
  readonly access: ApiAccess;
  /** Which processes may connect to it. */
  readonly socket: SocketAccess;
}

/**
 * Reads the options.
 *
 * @throws {UsageError} If one of them is wrong.
 */
export function parseServeOptions(values: OptionValues): ServeChoices {
  const endpoints = parseEndpointChoices(values);
  const sandbox = parsedOption(values, "sandbox", parseSandboxMode, "off, on or strict") ?? "on";
  if (sandbox !== "off" && endpoints.some(({ tracesVmm }) => tracesVmm === true)) {
    throw new UsageError(`Cannot take --vfio with from=vmm: ${TRACES_VMM}`);
  }
  return {
    level: parsedOption(values, "log-level", parseLogLevel, LOG_LEVELS.join(", ")),
    pollUs: parsedOption(
      values,
      "poll-us",
      (text) => parseNumber(text, 1_000_000),
      "microseconds from 0 to 1000000",
    ) ?? DEFAULT_POLL_US,
    rings: parsedOption(
      values,
      "rings",
      parseRings,
      `none, or a list of ${RING_FEATURE_NAMES.join(", ")}`,
    ) ?? parseRings(DEFAULT_RINGS)!,
    warmsUp: parsedOption(values, "warm-up", parseSwitch, "on or off") ?? true,
    frames: parsedOption(values, "frames", parseFrames, "guest or host") ?? "guest",
    frontEnd: frontEndChoice(values),
    access: socketAccess(values),
    api: apiChoice(values),
    device: parseDeviceOptions(values),
    endpoints,
    sandbox,
    sandboxPaths: sandboxPaths(values),
    record: recordChoice(values),
    allowsFileMemory: values["allow-file-memory"] === true,
    supervise: isSupervised(values),
  };
}

/**
 * Whether another process is to take over from one that dies. It has other host frames, no devices of the host, and no file to
 * go on recording in.
 */
function isSupervised(values: OptionValues): boolean {
  if (values.supervise !== true) return false;
  if (values.frames === "host") {
    throw new UsageError("Cannot take --frames host with --supervise: use --frames guest");
  }
  const other = ["vfio", "record"].find((name) => values[name] !== undefined);
  if (other === undefined) return true;
  throw new UsageError(`Cannot take --${other} with --supervise: leave out one of them`);
}

/** The way to a front end. */
function frontEndChoice(values: OptionValues): FrontEndChoice {
  const given = ["socket-path", "connect", "fd"].filter((name) => values[name] !== undefined);
  if (given.length > 1) {
    throw new UsageError(
      `Cannot serve with both --${given[0]} and --${given[1]}: give one of them`,
    );
  }
  return {
    listen: socketPath(values, "socket-path"),
    connect: socketPath(values, "connect"),
    descriptor: parsedOption(
      values,
      "fd",
      (text) => parseNumber(text, 2 ** 31 - 1),
      "the number of an inherited descriptor",
    ),
  };
}

/** The path of a socket that an option names. */
function socketPath(values: OptionValues, name: string): string | undefined {
  return parsedOption(values, name, SOCKET_PATH.read, SOCKET_PATH.form);
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

/** A list of ring features, or none. */
function parseRings(text: string): RingFeatures | undefined {
  return ringFeatures(text === "none" ? [] : text.split(","));
}

/** Whether something is to be done. */
function parseSwitch(text: string): boolean | undefined {
  return text === "on" ? true : text === "off" ? false : undefined;
}

/** What tables hold. */
function parseFrames(text: string): "guest" | "host" | undefined {
  return text === "guest" || text === "host" ? text : undefined;
}

/** Folders for what is added through the API. */
function sandboxPaths(values: OptionValues): readonly string[] {
  const paths = textOptions(values, "sandbox-path");
  if (paths.length > 0 && values["api-access"] !== "full") {
    throw new UsageError("Cannot take --sandbox-path without --api-access full");
  }
  return paths;
}

/** One of the modes. */
function parseSandboxMode(text: string): SandboxMode | undefined {
  return SANDBOX_MODES.find((mode) => mode === text);
}

/** One of the levels. */
function parseLogLevel(text: string): LogLevel | undefined {
  return LOG_LEVELS.find((level) => level === text);
}
