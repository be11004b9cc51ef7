import { type DeviceTree, readDeviceTree } from "../firmware/device_tree.ts";
import { addVirtioIommu, checkIommuTopology } from "../firmware/device_tree_iommu.ts";
import { writeDeviceTree } from "../firmware/device_tree_writer.ts";
import { readInput } from "./bounded_input.ts";
import type { Command } from "./command.ts";
import { CommandError, UsageError } from "./errors.ts";
import { textOption } from "./options.ts";
import { writeOutput } from "./output_file.ts";
import { endpointsOption, IOMMU_OPTION, iommuOption } from "./topology_options.ts";

/** Most bytes of a device tree. */
const MOST_BYTES = 16 * 2 ** 20;

/** `dtb`: patches the device tree that tells an ARM guest what sits behind the IOMMU. */
export const dtb: Command = {
  name: "dtb",
  summary: "patch the device tree that puts a guest's PCI devices behind the IOMMU",
  usage: ["--iommu ADDRESS [--endpoints FIRST-LAST] -i FILE -o FILE"],
  description: `Reads a flattened device tree as QEMU's "-M virt,...,dumpdtb=FILE" writes it,
    puts the virtio-iommu and the endpoints behind it into its PCI host bridge, and
    writes what QEMU's "-dtb FILE" takes. An endpoint's id is its PCI address.`,
  options: [{
    title: "Options",
    options: [
      { ...IOMMU_OPTION, help: `${IOMMU_OPTION.help}; it must be on bus 0` },
      {
        name: "endpoints",
        value: "FIRST-LAST",
        help:
          "PCI addresses behind it, both included; the IOMMU itself is left out (default: all of its segment)",
      },
      {
        name: "input",
        short: "i",
        value: "FILE",
        help: "device tree to read; - is standard input",
      },
      {
        name: "output",
        short: "o",
        value: "FILE",
        help: "where to write the patched one; - is standard output",
      },
    ],
  }],
  ending: `
Example:
  qemu-system-aarch64 -M virt,gic-version=3,dumpdtb=virt.dtb -cpu max
  viommu dtb --iommu 00:02.0 -i virt.dtb -o viommu.dtb
`,
  async run({ values }, streams) {
    const iommu = iommuOption(values);
    const input = textOption(values, "input");
    const output = textOption(values, "output");
    if (input === undefined) {
      throw new UsageError("Cannot patch the tree without -i FILE, such as -i virt.dtb");
    }
    if (output === undefined) {
      throw new UsageError("Cannot write the tree without -o FILE, such as -o viommu.dtb");
    }
    const segment = iommu - iommu % 65536;
    const [firstEndpoint, lastEndpoint] = endpointsOption(values) ?? [segment, segment + 0xffff];
    const topology = { iommu, firstEndpoint, lastEndpoint };
    orError(UsageError, () => checkIommuTopology(topology));
    const hint = "Linux takes none of more than 2 MiB";
    const bytes = await readInput(input, MOST_BYTES, hint, streams);
    const patched = orError(
      CommandError,
      (): DeviceTree => addVirtioIommu(readDeviceTree(bytes), topology),
    );
    await writeOutput(output, writeDeviceTree(patched), streams);
    return 0;
  },
};

/** Does something, and makes a RangeError the kind of error that it is for the command line. */
function orError<T>(kind: typeof UsageError | typeof CommandError, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof RangeError) throw new kind(error.message);
    throw error;
  }
}
