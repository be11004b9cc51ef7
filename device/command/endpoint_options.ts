/**
 * `--endpoint-device`: devices behind the IOMMU, from their texts to what serves them.
 *
 * @module
 */
import { endpointText, parseEndpoint, parseNumber } from "../address.ts";
import {
  BlockDevice,
  BlockDisk,
  type EndpointDevice,
  EndpointService,
  EntropyDevice,
  HostRandom,
  SeededRandom,
} from "../endpoint/mod.ts";
import { ImageFile, type SocketAccess, UnixListener } from "../host/mod.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import type { Log } from "../log.ts";
import { type OptionValues, parseText, textOptions, UsageError } from "./command.ts";

/** What `--help` says of the option. */
export const ENDPOINT_DEVICE_HELP = `  --endpoint-device rng:ENDPOINT,socket=PATH[,seed=N]
                           a virtio-rng on a socket of its own, whose DMA goes
                           through the tables of its endpoint; with a seed it
                           gives the same bytes every time
  --endpoint-device blk:ENDPOINT,socket=PATH,file=IMAGE[,readonly][,serial=S]
                           [,queues=N]
                           a virtio-blk with an image, likewise
                           (default serial viommu, 1 queue); can be repeated
`;

/** Most queues of a block device. */
const QUEUES_MAX = 64;
/** Entries of the queues in the QEMU arguments. */
const QUEUE_SIZES = { rng: 64, blk: 128 } as const;

/** One `--endpoint-device`. */
export interface EndpointDeviceOptions {
  /** What it is. */
  readonly type: "rng" | "blk";
  /** The endpoint it is. */
  readonly endpoint: number;
  /** Where its front end comes to. */
  readonly socket: string;
  /** What determines the bytes of an rng, if anything. */
  readonly seed?: number;
  /** The image of a blk. */
  readonly file: string;
  /** Whether it can only be read. */
  readonly readOnly: boolean;
  /** The name a blk says it has. */
  readonly serial: string;
  /** Queues. */
  readonly queues: number;
}

/** Names of the parts that each type may have. */
const PARTS = {
  rng: ["socket", "seed"],
  blk: ["socket", "file", "readonly", "serial", "queues"],
} as const;

/**
 * Reads every `--endpoint-device`.
 *
 * @throws {UsageError} If one is wrong.
 */
export function parseEndpointDevices(values: OptionValues): readonly EndpointDeviceOptions[] {
  const devices = textOptions(values, "endpoint-device").map(parseEndpointDevice);
  devices.forEach((device, i) => {
    const other = devices.findIndex((each) => each.endpoint === device.endpoint);
    if (other !== i) {
      throw new UsageError(
        `Cannot take --endpoint-device twice for endpoint ${endpointText(device.endpoint)}`,
      );
    }
  });
  return devices;
}

/** Opens what the options name and makes the services, in their order. */
export function openEndpointDevices(
  options: readonly EndpointDeviceOptions[],
  iommu: IommuDevice,
  log: Log,
  access: SocketAccess = {},
): readonly EndpointService[] {
  const services: EndpointService[] = [];
  try {
    for (const each of options) {
      const { endpoint, socket } = each;
      if (iommu.endpoints.formatOf(endpoint) === undefined) {
        throw new UsageError(
          `Cannot serve a device at ${endpointText(endpoint)}: no --endpoint includes it`,
        );
      }
      const device = openDevice(each);
      let listener: UnixListener;
      try {
        listener = UnixListener.listen(socket, access);
      } catch (error) {
        device.close();
        throw error;
      }
      services.push(new EndpointService({ iommu, endpoint, device, listener, log }));
    }
  } catch (error) {
    for (const service of services) service.close();
    if (error instanceof RangeError) throw new UsageError(error.message);
    throw error;
  }
  return services;
}

/** QEMU arguments that attach a device; its slot is that of its endpoint. */
export function endpointQemuArguments(options: EndpointDeviceOptions): readonly string[] {
  const { type, endpoint, socket, queues } = options;
  const name = `ep${endpoint}`;
  const fields = type === "rng" ? "virtio-id=4,config_size=0" : "virtio-id=2,config_size=60";
  return [
    `-chardev socket,id=${name},path=${socket}`,
    `-device vhost-user-test-device-pci,chardev=${name},${fields},num_vqs=${queues},` +
    `vq_size=${QUEUE_SIZES[type]},iommu_platform=on,addr=${qemuSlot(endpoint)}`,
  ];
}

/** `TYPE:ENDPOINT,NAME=VALUE,…`. */
function parseEndpointDevice(text: string): EndpointDeviceOptions {
  const [head, ...rest] = text.split(",");
  const colon = head.indexOf(":");
  const type = head.slice(0, colon);
  if (type !== "rng" && type !== "blk") {
    throw new UsageError(
      `Cannot take --endpoint-device ${text}: it must begin with rng:ENDPOINT or blk:ENDPOINT`,
    );
  }
  const endpoint = parseText(
    "--endpoint-device",
    head.slice(colon + 1),
    parseEndpoint,
    "an endpoint such as 00:03.0",
  );
  const parts = parseParts(text, type, rest);
  return {
    type,
    endpoint,
    socket: required(text, parts, "socket"),
    file: type === "blk" ? required(text, parts, "file") : "",
    readOnly: parts.has("readonly"),
    serial: parts.get("serial") ?? "viommu",
    queues: numberPart(text, parts, "queues", 1, QUEUES_MAX) ?? 1,
    ...seedPart(text, parts),
  };
}

/** The parts behind the first, by name; `readonly` is the one without a value. */
function parseParts(
  text: string,
  type: "rng" | "blk",
  rest: readonly string[],
): ReadonlyMap<string, string> {
  const names: readonly string[] = PARTS[type];
  const parts = new Map<string, string>();
  for (const part of rest) {
    const equals = part.indexOf("=");
    const name = equals < 0 ? part : part.slice(0, equals);
    if (!names.includes(name) || (equals < 0) !== (name === "readonly")) {
      const forms = names.map((each) => each === "readonly" ? each : `${each}=…`);
      throw new UsageError(
        `Cannot take "${part}" in --endpoint-device ${text}: it must be ${forms.join(" or ")}`,
      );
    }
    parts.set(name, equals < 0 ? "" : part.slice(equals + 1));
  }
  return parts;
}

function required(text: string, parts: ReadonlyMap<string, string>, name: string): string {
  const value = parts.get(name) ?? "";
  if (value === "") {
    throw new UsageError(`Cannot take --endpoint-device ${text}: ${name}=… is missing`);
  }
  return value;
}

function numberPart(
  text: string,
  parts: ReadonlyMap<string, string>,
  name: string,
  first: number,
  last: number,
): number | undefined {
  const value = parts.get(name);
  if (value === undefined) return undefined;
  const number = parseNumber(value, last);
  if (number === undefined || number < first) {
    throw new UsageError(
      `Cannot take --endpoint-device ${text}: ${name} must be a number from ${first} to ${last}`,
    );
  }
  return number;
}

function seedPart(
  text: string,
  parts: ReadonlyMap<string, string>,
): { readonly seed?: number } {
  const seed = numberPart(text, parts, "seed", 0, 0xffffffff);
  return seed === undefined ? {} : { seed };
}

/** The device itself. */
function openDevice(options: EndpointDeviceOptions): EndpointDevice {
  if (options.type === "rng") {
    return new EntropyDevice(
      options.seed === undefined ? new HostRandom() : new SeededRandom(options.seed),
    );
  }
  const { file, readOnly, serial, queues } = options;
  const disk = new BlockDisk(ImageFile.open(file, !readOnly), readOnly, serial);
  return new BlockDevice(disk, queues);
}

/** `DEVICE.FUNCTION` on the root bus, as QEMU's `addr=` takes it. */
export function qemuSlot(endpoint: number): string {
  const slot = ((endpoint >>> 3) & 0x1f).toString(16);
  return (endpoint & 7) === 0 ? slot : `${slot}.${endpoint & 7}`;
}
