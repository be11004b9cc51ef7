/** The options of `viot` and `dtb` that say which PCI devices are behind the IOMMU. */
import { parseEndpoint, parseEndpointRange } from "../address.ts";
import { UsageError } from "./errors.ts";
import { type OptionDefinition, type OptionValues, parsedOption } from "./options.ts";

/** `--iommu`. */
export const IOMMU_OPTION: OptionDefinition = {
  name: "iommu",
  value: "ADDRESS",
  help: "PCI address of the virtio-iommu, e.g. 00:02.0",
};

/** The PCI address of `--iommu`. */
export function iommuOption(values: OptionValues): number {
  const iommu = parsedOption(values, "iommu", parseEndpoint, "a PCI address such as 00:02.0");
  if (iommu !== undefined) return iommu;
  throw new UsageError("Cannot do that without --iommu ADDRESS, such as --iommu 00:02.0");
}

/** The first and last PCI address of `--endpoints`. */
export function endpointsOption(
  values: OptionValues,
): readonly [first: number, last: number] | undefined {
  const form = "two PCI addresses such as 00:00.0-ff:1f.7";
  return parsedOption(values, "endpoints", parseEndpointRange, form);
}
