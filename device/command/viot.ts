/**
 * `viot`: writes the ACPI table that tells an x86 guest what sits behind the IOMMU.
 *
 * @module
 */
import { parseEndpoint, parseEndpointRange } from "../address.ts";
import { buildViot } from "../firmware/viot.ts";
import {
  type Command,
  parsedOption,
  parseOptions,
  refusePositionals,
  textOption,
  UsageError,
} from "./command.ts";

/** Writes an ACPI VIOT table. */
export const viot: Command = {
  name: "viot",
  summary: "write the ACPI table that puts a guest's PCI devices behind the IOMMU",
  help: `Usage: viommu viot --iommu ADDRESS [--endpoints FIRST-LAST] -o FILE

Writes an ACPI VIOT table (ACPI 6.5, 5.2.34), checksum included, as QEMU's
"-acpitable file=FILE" takes it. An endpoint's id is its PCI address.

Options:
  --iommu ADDRESS          PCI address of the virtio-iommu, e.g. 00:02.0
  --endpoints FIRST-LAST   PCI addresses behind it, both included; the IOMMU
                           itself leaves itself out (default 00:00.0-ff:1f.7)
  -o, --output FILE        where to write the table

Example:
  viommu viot --iommu 00:02.0 -o viot.aml
`,
  async run(args) {
    const { values, positionals } = parseOptions(args, {
      iommu: { type: "string" },
      endpoints: { type: "string" },
      output: { type: "string", short: "o" },
    });
    refusePositionals(positionals);
    const iommu = parsedOption(values, "iommu", parseEndpoint, "a PCI address such as 00:02.0");
    const output = textOption(values, "output");
    if (iommu === undefined) {
      throw new UsageError(
        "Cannot write the table without --iommu ADDRESS, such as --iommu 00:02.0",
      );
    }
    if (output === undefined) {
      throw new UsageError("Cannot write the table without -o FILE, such as -o viot.aml");
    }
    const form = "two PCI addresses such as 00:00.0-ff:1f.7";
    const [firstEndpoint, lastEndpoint] =
      parsedOption(values, "endpoints", parseEndpointRange, form) ?? [0, 0xffff];
    let table: Uint8Array;
    try {
      table = buildViot({ iommu, firstEndpoint, lastEndpoint });
    } catch (error) {
      if (error instanceof RangeError) throw new UsageError(error.message);
      throw error;
    }
    await Deno.writeFile(output, table);
    return 0;
  },
};
