import { buildViot } from "../firmware/viot.ts";
import type { Command } from "./command.ts";
import { UsageError } from "./errors.ts";
import { textOption } from "./options.ts";
import { writeOutput } from "./output_file.ts";
import { endpointsOption, IOMMU_OPTION, iommuOption } from "./topology_options.ts";

/** `viot`: writes the ACPI table that tells an x86 guest what sits behind the IOMMU. */
export const viot: Command = {
  name: "viot",
  summary: "write the ACPI table that puts a guest's PCI devices behind the IOMMU",
  usage: ["--iommu ADDRESS [--endpoints FIRST-LAST] -o FILE"],
  description: `Writes an ACPI VIOT table (ACPI 6.5, 5.2.34), checksum included, as QEMU's
    "-acpitable file=FILE" takes it. An endpoint's id is its PCI address.`,
  options: [{
    title: "Options",
    options: [IOMMU_OPTION, {
      name: "endpoints",
      value: "FIRST-LAST",
      help: "PCI addresses behind it, both included; a guest leaves the IOMMU itself out " +
        "(default 00:00.0-ff:1f.7)",
    }, {
      name: "output",
      short: "o",
      value: "FILE",
      help: "where to write the table; - is standard output",
    }],
  }],
  ending: `
Example:
  viommu viot --iommu 00:02.0 -o viot.aml
`,
  async run({ values }, streams) {
    const iommu = iommuOption(values);
    const output = textOption(values, "output");
    if (output === undefined) {
      throw new UsageError("Cannot write the table without -o FILE, such as -o viot.aml");
    }
    const [firstEndpoint, lastEndpoint] = endpointsOption(values) ?? [0, 0xffff];
    let table: Uint8Array;
    try {
      table = buildViot({ iommu, firstEndpoint, lastEndpoint });
    } catch (error) {
      if (error instanceof RangeError) throw new UsageError(error.message);
      throw error;
    }
    await writeOutput(output, table, streams);
    return 0;
  },
};
