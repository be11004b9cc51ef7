/**
 * `--endpoint-relay`: back ends of other programs behind the IOMMU and confined by it, from their texts to what stands in
 * between.
 */
import { PAGE_SIZE, parseSize } from "../address.ts";
import {
  EndpointRelay,
  RELAYED_TYPE_NAMES,
  type RelayedType,
  relayedType,
} from "../endpoint/mod.ts";
import {
  BACK_END_PARTS,
  type BackEndChoice,
  backEndChoice,
  DEFAULT_TIMEOUT_MS,
  type EndpointOption,
  listensOf,
  openBetween,
} from "./endpoint_choices.ts";
import { ENDPOINT, oneOf, optional, parseParts, type TextForm } from "./option_parts.ts";
import { chardevArgument, qemuSlot } from "./qemu_arguments.ts";

/** Bytes for buffers, unless the option says otherwise. */
const DEFAULT_MEMORY = 64 << 20;
const MEMORY_MIN = 1 << 20;
const MEMORY_MAX = 2 ** 30;

/** One `--endpoint-relay`. */
export interface EndpointRelayChoice extends BackEndChoice {
  /** Bytes for buffers; whole pages. */
  readonly memory: number;
  /** What is known of the device. */
  readonly type: RelayedType;
}

/** Bytes for buffers. */
const MEMORY: TextForm<number> = {
  form: "a size from 1M to 1G",
  read(text) {
    const size = parseSize(text);
    if (size === undefined || size < MEMORY_MIN || size > MEMORY_MAX) return undefined;
    return Math.floor(size / PAGE_SIZE) * PAGE_SIZE;
  },
};
/** What is known of a device. */
const TYPE: TextForm<RelayedType> = { form: oneOf(...RELAYED_TYPE_NAMES).form, read: relayedType };

const OPTION = {
  name: "--endpoint-relay",
  head: ENDPOINT,
  parts: {
    ...BACK_END_PARTS,
    "memory": optional(MEMORY, DEFAULT_MEMORY),
    "type": optional(TYPE, relayedType()!),
  },
};

/** Back ends that are confined. */
export const endpointRelay: EndpointOption = {
  definition: {
    name: "endpoint-relay",
    value:
      "ENDPOINT,listen=PATH,backend=PATH[,timeout-ms=N][,backend-mode=connect|listen][,memory=SIZE]" +
      `[,type=${RELAYED_TYPE_NAMES.join("|")}]`,
    help:
      'any vhost-user back end, such as virtiofsd: the VMM connects to "listen", we to "backend" (or the back ' +
      'end to us, with "listen"), and requests pass through memory of ours, so that the back end reaches none of the ' +
      "guest's; can be repeated; see docs/endpoints.md (default connect, 64M for buffers, " +
      `${DEFAULT_TIMEOUT_MS} ms for a message, other: what is in flight when the back end dies is submitted again)`,
    repeats: true,
  },
  parse(text) {
    const choice = parseEndpointRelay(text);
    const { endpoint, type, memory: bufferBytes, timeout: patience } = choice;
    return {
      endpoint,
      listens: listensOf(choice),
      connects: choice.backEndMode === "connect",
      files: [],
      qemuArguments: relayQemuArguments(choice),
      open: ({ iommu, log, access }) =>
        openBetween(
          choice,
          access,
          (sockets) =>
            new EndpointRelay({ iommu, endpoint, ...sockets, type, bufferBytes, patience, log }),
        ),
    };
  },
};

/** What QEMU has to be told of a type: its device id, queues, their entries, bytes of config space. */
const QEMU_FIELDS: Readonly<Record<string, string>> = {
  blk: "virtio-id=2,num_vqs=1,vq_size=128,config_size=60",
  net: "virtio-id=1,num_vqs=2,vq_size=256,config_size=0",
  vsock: "virtio-id=19,num_vqs=3,vq_size=128,config_size=8",
  fs: "virtio-id=26,num_vqs=2,vq_size=128,config_size=40",
};

/** QEMU arguments that attach a relayed device; its slot is that of its endpoint. Nothing where its type is not known. */
function relayQemuArguments(
  { endpoint, listen, type }: EndpointRelayChoice,
): readonly string[] {
  const fields = QEMU_FIELDS[type.name];
  if (fields === undefined) return [];
  const name = `ep${endpoint}`;
  return [
    chardevArgument(name, listen),
    `-device vhost-user-test-device-pci,chardev=${name},${fields},iommu_platform=on,` +
    `addr=${qemuSlot(endpoint)}`,
  ];
}

/**
 * Reads `ENDPOINT,NAME=VALUE,…`.
 *
 * @throws {UsageError} If the text is wrong.
 */
export function parseEndpointRelay(text: string): EndpointRelayChoice {
  const [endpoint, parts] = parseParts(OPTION, text);
  const { memory, type } = parts;
  return { ...backEndChoice(OPTION.name, text, endpoint, parts), memory, type };
}
