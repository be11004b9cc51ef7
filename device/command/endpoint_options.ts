/** `--endpoint-device`: devices behind the IOMMU, from their texts to what serves them. */
import { parseEndpoint } from "../address.ts";
import {
  BlockDevice,
  BlockDisk,
  type EndpointDevice,
  EndpointService,
  EntropyDevice,
  HostRandom,
  SeededRandom,
} from "../endpoint/mod.ts";
import { ImageFile, UnixListener } from "../host/mod.ts";
import type { EndpointOption } from "./endpoint_choices.ts";
import {
  FLAG,
  numberFrom,
  optional,
  parseParts,
  required,
  SOCKET_PATH,
  type TextForm,
} from "./option_parts.ts";
import { chardevArgument, qemuSlot } from "./qemu_arguments.ts";

/** Most queues of a block device. */
const QUEUES_MAX = 64;
/** Entries of the queues in the QEMU arguments. */
const QUEUE_SIZES = { rng: 64, blk: 128 } as const;

/** One `--endpoint-device`. */
export type EndpointDeviceOptions = EntropyOptions | BlockOptions;

/** What both kinds have. */
interface CommonOptions {
  /** The endpoint it is. */
  readonly endpoint: number;
  /** Where its front end comes to. */
  readonly socket: string;
  /** Queues. */
  readonly queues: number;
}

interface EntropyOptions extends CommonOptions {
  readonly type: "rng";
  /** What determines its bytes, if anything. */
  readonly seed: number | undefined;
}

interface BlockOptions extends CommonOptions {
  readonly type: "blk";
  /** The image. */
  readonly file: string;
  /** Whether it can only be read. */
  readonly readOnly: boolean;
  /** The name it says it has. */
  readonly serial: string;
}

const RNG_OPTION = {
  name: "--endpoint-device",
  head: headOf("rng"),
  parts: {
    socket: required(SOCKET_PATH),
    seed: optional(numberFrom(0, 0xffffffff), undefined),
  },
};

const BLK_OPTION = {
  name: "--endpoint-device",
  head: headOf("blk"),
  parts: {
    socket: required(SOCKET_PATH),
    file: required({ form: "the path of an image", read: (text) => text }),
    readonly: FLAG,
    serial: optional({ form: "a text", read: (text) => text }, "viommu"),
    queues: optional(numberFrom(1, QUEUES_MAX), 1),
  },
};

/** What a device of a type begins with. */
function headOf(type: "rng" | "blk"): TextForm<number> {
  return {
    form: "rng:ENDPOINT or blk:ENDPOINT, such as blk:00:03.0",
    read: (text) =>
      text.startsWith(`${type}:`) ? parseEndpoint(text.slice(type.length + 1)) : undefined,
  };
}

/** Devices of ours. */
export const endpointDevice: EndpointOption = {
  definition: {
    name: "endpoint-device",
    value: "rng:ENDPOINT,socket=PATH[,seed=N]",
    help:
      "a virtio-rng on a socket of its own, whose DMA goes through the tables of its endpoint; with a seed it " +
      "gives the same bytes every time",
    more: [{
      value: "blk:ENDPOINT,socket=PATH,file=IMAGE[,readonly][,serial=S][,queues=N]",
      help:
        "a virtio-blk with an image, likewise (default serial viommu, 1 queue); can be repeated",
    }],
    repeats: true,
  },
  parse(text) {
    const options = parseEndpointDevice(text);
    const { endpoint, socket } = options;
    return {
      endpoint,
      listens: [socket],
      connects: false,
      files: options.type === "blk" ? [options.file] : [],
      qemuArguments: endpointQemuArguments(options),
      open({ iommu, log, access }) {
        const device = openDevice(options);
        try {
          const listener = UnixListener.listen(socket, access);
          return new EndpointService({ iommu, endpoint, device, listener, log });
        } catch (error) {
          device.close();
          throw error;
        }
      },
    };
  },
};

/** QEMU arguments that attach a device; its slot is that of its endpoint. */
function endpointQemuArguments(options: EndpointDeviceOptions): readonly string[] {
  const { type, endpoint, socket, queues } = options;
  const name = `ep${endpoint}`;
  const fields = type === "rng" ? "virtio-id=4,config_size=0" : "virtio-id=2,config_size=60";
  return [
    chardevArgument(name, socket),
    `-device vhost-user-test-device-pci,chardev=${name},${fields},num_vqs=${queues},` +
    `vq_size=${QUEUE_SIZES[type]},iommu_platform=on,addr=${qemuSlot(endpoint)}`,
  ];
}

/**
 * Reads `TYPE:ENDPOINT,NAME=VALUE,…`.
 *
 * @throws {UsageError} If the text is wrong.
 */
export function parseEndpointDevice(text: string): EndpointDeviceOptions {
  if (text.startsWith("rng:")) {
    const [endpoint, { socket, seed }] = parseParts(RNG_OPTION, text);
    return { type: "rng", endpoint, socket, queues: 1, seed };
  }
  const [endpoint, { readonly: readOnly, ...parts }] = parseParts(BLK_OPTION, text);
  return { type: "blk", endpoint, readOnly, ...parts };
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
