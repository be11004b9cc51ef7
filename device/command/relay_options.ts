/**
 * `--endpoint-relay`: back ends of other programs behind the IOMMU and confined by it, from their texts to what stands in
 * between.
 *
 * @module
 */
import { endpointText, parseEndpoint, parseNumber, parseSize } from "../address.ts";
import {
  EndpointRelay,
  POOL_PAGE,
  RELAYED_TYPE_NAMES,
  type RelayedType,
  relayedType,
} from "../endpoint/mod.ts";
import { type SocketAccess, UnixListener } from "../host/mod.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import type { Log } from "../log.ts";
import { type OptionValues, parseText, textOptions, UsageError } from "./command.ts";
import { qemuSlot } from "./endpoint_options.ts";

/** Milliseconds that a back end has to answer a message, unless the option says otherwise. */
const DEFAULT_TIMEOUT_MS = 5000;
/** Bytes for buffers, unless the option says otherwise. */
const DEFAULT_MEMORY = 64 << 20;
const MEMORY_MIN = 1 << 20;
const MEMORY_MAX = 2 ** 30;

/** What `--help` says of the option. */
export const ENDPOINT_RELAY_HELP =
  `  --endpoint-relay ENDPOINT,listen=PATH,backend=PATH[,timeout-ms=N]
                   [,backend-mode=connect|listen][,memory=SIZE]
                   [,type=${RELAYED_TYPE_NAMES.join("|")}]
                           any vhost-user back end, such as virtiofsd: the VMM
                           connects to "listen", we to "backend" (or the back
                           end to us, with "listen"), and requests pass
                           through memory of ours, so that the back end
                           reaches none of the guest's; can be repeated; see
                           docs/endpoints.md (default connect, 64M for
                           buffers, ${DEFAULT_TIMEOUT_MS} ms for a message, other: what is in
                           flight when the back end dies is submitted again)
`;

/** One `--endpoint-relay`. */
export interface EndpointRelayChoice {
  /** The endpoint it is. */
  readonly endpoint: number;
  /** Where the VMM comes to. */
  readonly listen: string;
  /** The back end's socket. */
  readonly backEnd: string;
  /** Which side listens there: the back end, or we. */
  readonly backEndMode: "connect" | "listen";
  /** Bytes for buffers; whole pages. */
  readonly memory: number;
  /** Milliseconds for an answer. */
  readonly timeout: number;
  /** What is known of the device. */
  readonly type: RelayedType;
}

const PARTS = ["listen", "backend", "backend-mode", "memory", "timeout-ms", "type"];

/**
 * Reads every `--endpoint-relay`.
 *
 * @param taken Endpoints that this process serves or proxies a device at.
 * @throws {UsageError} If one is wrong.
 */
export function parseEndpointRelays(
  values: OptionValues,
  taken: readonly number[],
): readonly EndpointRelayChoice[] {
  const relays = textOptions(values, "endpoint-relay").map(parseEndpointRelay);
  const seen = new Set(taken);
  for (const { endpoint } of relays) {
    if (seen.has(endpoint)) {
      throw new UsageError(
        `Cannot take --endpoint-relay for endpoint ${
          endpointText(endpoint)
        }: it has a device already`,
      );
    }
    seen.add(endpoint);
  }
  return relays;
}

/**
 * Opens the sockets and makes the relays, in their order.
 *
 * @param access Who may connect to them.
 */
export function openEndpointRelays(
  choices: readonly EndpointRelayChoice[],
  iommu: IommuDevice,
  log: Log,
  access: SocketAccess = {},
): readonly EndpointRelay[] {
  const relays: EndpointRelay[] = [];
  try {
    for (const choice of choices) {
      const { endpoint, memory, timeout, type } = choice;
      if (iommu.endpoints.formatOf(endpoint) === undefined) {
        throw new UsageError(
          `Cannot relay ${endpointText(endpoint)}: no --endpoint includes it`,
        );
      }
      const listener = UnixListener.listen(choice.listen, access);
      let backEnd: string | UnixListener = choice.backEnd;
      try {
        if (choice.backEndMode === "listen") {
          backEnd = UnixListener.listen(choice.backEnd, access);
        }
        relays.push(
          new EndpointRelay({
            iommu,
            endpoint,
            listener,
            backEnd,
            type,
            bufferBytes: memory,
            patience: timeout,
            log,
          }),
        );
      } catch (error) {
        listener.close();
        if (typeof backEnd !== "string") backEnd.close();
        throw error;
      }
    }
  } catch (error) {
    for (const relay of relays) relay.close();
    if (error instanceof RangeError) throw new UsageError(error.message);
    throw error;
  }
  return relays;
}

/** What QEMU has to be told of a type: its device id, queues, their entries, bytes of config space. */
const QEMU_FIELDS: Readonly<Record<string, string>> = {
  blk: "virtio-id=2,num_vqs=1,vq_size=128,config_size=60",
  net: "virtio-id=1,num_vqs=2,vq_size=256,config_size=0",
  vsock: "virtio-id=19,num_vqs=3,vq_size=128,config_size=8",
  fs: "virtio-id=26,num_vqs=2,vq_size=128,config_size=40",
};

/** QEMU arguments that attach a relayed device; its slot is that of its endpoint. Nothing where its type is not known. */
export function relayQemuArguments(
  { endpoint, listen, type }: EndpointRelayChoice,
): readonly string[] {
  const fields = QEMU_FIELDS[type.name];
  if (fields === undefined) return [];
  const name = `ep${endpoint}`;
  return [
    `-chardev socket,id=${name},path=${listen}`,
    `-device vhost-user-test-device-pci,chardev=${name},${fields},iommu_platform=on,` +
    `addr=${qemuSlot(endpoint)}`,
  ];
}

/** `ENDPOINT,NAME=VALUE,…`. */
function parseEndpointRelay(text: string): EndpointRelayChoice {
  const [head, ...rest] = text.split(",");
  const endpoint = parseText(
    "--endpoint-relay",
    head,
    parseEndpoint,
    "an endpoint such as 00:03.0",
  );
  const parts = new Map<string, string>();
  for (const part of rest) {
    const equals = part.indexOf("=");
    const name = part.slice(0, Math.max(0, equals));
    if (!PARTS.includes(name)) {
      throw new UsageError(
        `Cannot take "${part}" in --endpoint-relay ${text}: it must be ` +
          PARTS.map((each) => `${each}=…`).join(" or "),
      );
    }
    parts.set(name, part.slice(equals + 1));
  }
  const listen = required(text, parts, "listen");
  const backEnd = required(text, parts, "backend");
  if (listen === backEnd) {
    throw new UsageError(
      `Cannot take --endpoint-relay ${text}: listen and backend are the same socket`,
    );
  }
  return {
    endpoint,
    listen,
    backEnd,
    backEndMode: modeOf(text, parts),
    memory: memoryOf(text, parts),
    timeout: timeoutOf(text, parts),
    type: typeOf(text, parts),
  };
}

function required(text: string, parts: ReadonlyMap<string, string>, name: string): string {
  const value = parts.get(name) ?? "";
  if (value === "") {
    throw new UsageError(`Cannot take --endpoint-relay ${text}: ${name}=… is missing`);
  }
  return value;
}

function modeOf(text: string, parts: ReadonlyMap<string, string>): "connect" | "listen" {
  const mode = parts.get("backend-mode") ?? "connect";
  if (mode === "connect" || mode === "listen") return mode;
  throw new UsageError(
    `Cannot take --endpoint-relay ${text}: backend-mode must be connect or listen`,
  );
}

function typeOf(text: string, parts: ReadonlyMap<string, string>): RelayedType {
  const type = relayedType(parts.get("type"));
  if (type !== undefined) return type;
  throw new UsageError(
    `Cannot take --endpoint-relay ${text}: type must be one of ${RELAYED_TYPE_NAMES.join(", ")}`,
  );
}

function memoryOf(text: string, parts: ReadonlyMap<string, string>): number {
  const value = parts.get("memory");
  if (value === undefined) return DEFAULT_MEMORY;
  const size = parseSize(value);
  if (size === undefined || size < MEMORY_MIN || size > MEMORY_MAX) {
    throw new UsageError(
      `Cannot take --endpoint-relay ${text}: memory must be a size from 1M to 1G`,
    );
  }
  return Math.floor(size / POOL_PAGE) * POOL_PAGE;
}

function timeoutOf(text: string, parts: ReadonlyMap<string, string>): number {
  const value = parts.get("timeout-ms");
  if (value === undefined) return DEFAULT_TIMEOUT_MS;
  const number = parseNumber(value, 60_000);
  if (number === undefined || number < 1) {
    throw new UsageError(
      `Cannot take --endpoint-relay ${text}: timeout-ms must be a number from 1 to 60000`,
    );
  }
  return number;
}
