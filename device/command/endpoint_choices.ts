/**
 * What the options about endpoints have in common: `--endpoint-device`, `--endpoint-proxy`, `--endpoint-relay` and `--vfio`.
 *
 * A proxy and a relay have two sockets each: one for the VMM, one for the back end.
 */
import type { HostDeviceOpener, ServedEndpoint } from "../endpoint/mod.ts";
import { type SocketAccess, UnixListener, type UnixStream } from "../host/mod.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import type { Log } from "../log.ts";
import type { DescriptorSource } from "./descriptor_source.ts";
import { UsageError } from "./errors.ts";
import type { OptionDefinition } from "./options.ts";
import {
  numberFrom,
  oneOf,
  optional,
  type PartValues,
  required,
  SOCKET_PATH,
} from "./option_parts.ts";

/** An option about an endpoint. */
export interface EndpointOption {
  /** How it is given. */
  readonly definition: OptionDefinition;
  /**
   * Reads its text.
   *
   * @throws {UsageError} If the text is wrong.
   */
  parse(text: string): EndpointChoice;
}

/** One endpoint as an option says it, not open yet. */
export interface EndpointChoice {
  /** The endpoint's id. */
  readonly endpoint: number;
  /** Paths at which it will listen. */
  readonly listens: readonly string[];
  /** Whether it connects to a socket, again whenever that has gone. */
  readonly connects: boolean;
  /** Paths of files that it opens. */
  readonly files: readonly string[];
  /** QEMU arguments that attach it, where they are known. */
  readonly qemuArguments: readonly string[];
  /** Whether it is a device of the host, and no vhost-user device. */
  readonly isHostDevice?: boolean;
  /** Whether it takes files from the VMM's process, which no sandbox permits. */
  readonly tracesVmm?: boolean;
  /** How it is sent to a running `serve`, where its text has numbers of descriptors. */
  readonly sent?: SentChoice;
  /** Opens its sockets and files; a RangeError of one line says what cannot be. */
  open(parts: EndpointParts): ServedEndpoint;
}

/** An endpoint whose descriptors are sent to another process. */
export interface SentChoice {
  /** Its text with numbers that count those that are sent, from 0 on. */
  readonly text: string;
  /** The numbers that they have here, in that order. */
  readonly numbers: readonly number[];
}

/** What an endpoint is opened with. */
export interface EndpointParts {
  /** Translates for it. */
  readonly iommu: IommuDevice;
  /** Where log lines go. */
  readonly log: Log;
  /** Who may connect to its sockets. */
  readonly access: SocketAccess;
  /** The descriptors that its text has numbers of. */
  readonly descriptors: DescriptorSource;
  /** Opens devices of the host. */
  readonly hostDevices: HostDeviceOpener;
  /** The front end of the IOMMU, if one is connected. */
  readonly frontEnd?: UnixStream | undefined;
}

/** Milliseconds in which a back end must answer a message, by default. */
export const DEFAULT_TIMEOUT_MS = 5000;

/** Parts about a back end of another program. */
export const BACK_END_PARTS = {
  "listen": required(SOCKET_PATH),
  "backend": required(SOCKET_PATH),
  "backend-mode": optional(oneOf("connect", "listen"), "connect"),
  "timeout-ms": optional(numberFrom(1, 60_000), DEFAULT_TIMEOUT_MS),
};

/** What they say. */
export interface BackEndChoice {
  /** The endpoint it is. */
  readonly endpoint: number;
  /** Where the VMM comes to. */
  readonly listen: string;
  /** The back end's socket. */
  readonly backEnd: string;
  /** Which side listens there: the back end, or we. */
  readonly backEndMode: "connect" | "listen";
  /** Milliseconds for an answer. */
  readonly timeout: number;
}

/**
 * What an option says of a back end.
 *
 * @param option The option's name, dashes included.
 * @param text Its text, for the message.
 * @throws {UsageError} If both sockets are the same.
 */
export function backEndChoice(
  option: string,
  text: string,
  endpoint: number,
  parts: PartValues<typeof BACK_END_PARTS>,
): BackEndChoice {
  const { listen, backend: backEnd } = parts;
  if (listen === backEnd) {
    throw new UsageError(`Cannot take ${option} ${text}: listen and backend are the same socket`);
  }
  const { "backend-mode": backEndMode, "timeout-ms": timeout } = parts;
  return { endpoint, listen, backEnd, backEndMode, timeout };
}

/** Where that listens. */
export function listensOf({ listen, backEnd, backEndMode }: BackEndChoice): readonly string[] {
  return backEndMode === "listen" ? [listen, backEnd] : [listen];
}

/**
 * Opens the sockets of a choice for what stands between them; where that cannot be had, they are closed.
 *
 * @param make Gets the listener for the VMM, and the back end's path, or the listener for it.
 */
export function openBetween<S>(
  { listen, backEnd, backEndMode }: BackEndChoice,
  access: SocketAccess,
  make: (
    sockets: { readonly listener: UnixListener; readonly backEnd: string | UnixListener },
  ) => S,
): S {
  const opened = [UnixListener.listen(listen, access)];
  try {
    if (backEndMode === "listen") opened.push(UnixListener.listen(backEnd, access));
    return make({ listener: opened[0], backEnd: opened[1] ?? backEnd });
  } catch (error) {
    for (const each of opened) each.close();
    throw error;
  }
}
