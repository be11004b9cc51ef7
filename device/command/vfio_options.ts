/**
 * `--vfio`: devices of the host that are passed through to the guest, from their texts to what attaches them.
 *
 * The VMM binds the device and drives its registers; what is needed here is the same open files. Whoever starts both opens
 * them and has both inherit them, or sends them to the API socket, or they are taken from the VMM's process.
 */
import { endpointText } from "../address.ts";
import { HostEndpoint, type HostFiles } from "../endpoint/mod.ts";
import type { EndpointOption, EndpointParts } from "./endpoint_choices.ts";
import { UsageError } from "./errors.ts";
import { hostModel } from "./host_model.ts";
import {
  ENDPOINT,
  numberFrom,
  oneOf,
  optional,
  parseParts,
  type TextForm,
} from "./option_parts.ts";
import { qemuSlot } from "./qemu_arguments.ts";

/** One `--vfio`. */
export interface VfioChoice {
  /** The endpoint it is. */
  readonly endpoint: number;
  /** Its open files, or which of the VMM's devices it is. */
  readonly source: VfioNumbers | VmmDevice;
}

/** Numbers of the descriptors of a device. */
export interface VfioNumbers {
  /** Of `/dev/vfio/devices/vfioN`. */
  readonly device: number;
  /** Of the `/dev/iommu` that the VMM binds it to. */
  readonly iommufd: number;
}

/** A device of the VMM. */
export interface VmmDevice {
  /** `vfioN`, or its PCI address on the host with the segment; the only one that the VMM has, where it is undefined. */
  readonly wanted: string | undefined;
}

const NUMBER = numberFrom(0, 2 ** 31 - 1);

const HOST_DEVICE: TextForm<string> = {
  form: "a device of the host, such as vfio0 or 0000:01:00.0",
  read(text) {
    if (/^vfio[0-9]+$/.test(text)) return text;
    const [, segment = "0000", rest] =
      /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])$/.exec(text.toLowerCase()) ?? [];
    return rest === undefined ? undefined : `${segment}:${rest}`;
  },
};

const OPTION = {
  name: "--vfio",
  head: ENDPOINT,
  parts: {
    fd: optional(NUMBER, undefined),
    iommufd: optional(NUMBER, undefined),
    from: optional(oneOf("vmm"), undefined),
    device: optional(HOST_DEVICE, undefined),
  },
};

/** Devices of the host. */
export const vfio: EndpointOption = {
  definition: {
    name: "vfio",
    value: "ENDPOINT,fd=N,iommufd=N",
    help: "a device of the host that is passed through; the numbers are those of the open files " +
      "/dev/vfio/devices/vfioN and /dev/iommu, which serve and the VMM inherit",
    more: [{
      value: "ENDPOINT,from=vmm[,device=vfioN|PCI]",
      help:
        "likewise, with the open files of the VMM that connects; device says which one, if it has " +
        "several; can be repeated; see docs/passthrough.md",
    }],
    repeats: true,
  },
  parse(text) {
    const choice = parseVfio(text);
    const { endpoint, source } = choice;
    return {
      endpoint,
      listens: [],
      connects: false,
      files: [],
      tracesVmm: "wanted" in source,
      qemuArguments: vfioQemuArguments(choice),
      isHostDevice: true,
      ...("wanted" in source ? {} : {
        sent: { text: `${endpoint},fd=0,iommufd=1`, numbers: [source.device, source.iommufd] },
      }),
      open(parts) {
        const { iommu, log, hostDevices: opener } = parts;
        const opened = "wanted" in source
          ? source
          : opener.open(endpoint, takeFiles(endpoint, source, parts));
        return new HostEndpoint({
          endpoint,
          source: opened,
          opener,
          model: hostModel(iommu),
          log,
          frontEnd: parts.frontEnd,
        });
      },
    };
  },
};

/**
 * Reads `ENDPOINT,NAME=VALUE,…`.
 *
 * @throws {UsageError} If the text is wrong.
 */
export function parseVfio(text: string): VfioChoice {
  const [endpoint, { fd, iommufd, from, device }] = parseParts(OPTION, text);
  function refuse(problem: string): never {
    throw new UsageError(`Cannot take ${OPTION.name} ${text}: ${problem}`);
  }
  if (from !== undefined) {
    if (fd === undefined && iommufd === undefined) return { endpoint, source: { wanted: device } };
    refuse("from=vmm takes the files that the VMM has open; leave out fd and iommufd");
  }
  if (device !== undefined) {
    refuse("device says which device of the VMM it is; it goes with from=vmm");
  }
  if (fd === undefined || iommufd === undefined) {
    refuse("it must have fd=N and iommufd=N, the two open files, or from=vmm");
  }
  if (fd === iommufd) refuse("fd and iommufd are the same descriptor");
  return { endpoint, source: { device: fd, iommufd } };
}

/**
 * Takes over the files of a device, after a look at what both are.
 *
 * @throws {RangeError} If one is something else: one line.
 */
function takeFiles(
  endpoint: number,
  numbers: VfioNumbers,
  { descriptors, hostDevices }: EndpointParts,
): HostFiles {
  for (const file of ["iommufd", "device"] as const) {
    const number = numbers[file];
    const problem = hostDevices.problemOf(descriptors.numberOf(number), file);
    if (problem === undefined) continue;
    throw new RangeError(
      `Cannot use descriptor ${number} for endpoint ${endpointText(endpoint)}: ${problem}`,
    );
  }
  return { iommufd: descriptors.take(numbers.iommufd), device: descriptors.take(numbers.device) };
}

/** QEMU arguments for the device; its slot is that of its endpoint. */
function vfioQemuArguments({ endpoint, source }: VfioChoice): readonly string[] {
  const [id, iommufd, device] = "wanted" in source
    ? ["iommufd0", "", `host=${source.wanted?.includes(":") === true ? source.wanted : "PCI"}`]
    : [`iommufd${source.iommufd}`, `,fd=${source.iommufd}`, `fd=${source.device}`];
  const slot = qemuSlot(endpoint);
  return [
    `-object iommufd,id=${id}${iommufd}`,
    // QEMU 11.1 crashes where vfio-pci has fd and no id.
    `-device vfio-pci,id=vfio${slot},${device},iommufd=${id},addr=${slot}`,
  ];
}
