/**
 * Converts a configuration of the suite to options of our device.
 *
 * @module
 */
import { parseAddressRange } from "../../device/address.ts";
import type { DeviceOptions } from "../../device/iommu/iommu_device.ts";
import { RESV_MEM_MSI, RESV_MEM_RESERVED } from "../../device/iommu/reserved_region.ts";
import { DEFAULT_OPTIONS } from "../device/in_process_guest.ts";
import type { Configuration } from "./subject.ts";

/** The options of our device for a configuration of the suite. */
export function optionsOf(configuration: Configuration): DeviceOptions {
  const { bypass, reserved, withoutFeature, lastEndpoint, maxDomains, maxMappings, inputRange } =
    configuration;
  return {
    ...DEFAULT_OPTIONS,
    ...(bypass === undefined ? {} : { bypass }),
    ...(inputRange === undefined ? {} : { inputRange: parseAddressRange(inputRange)! }),
    ...(maxDomains === undefined ? {} : { maxDomains }),
    ...(maxMappings === undefined ? {} : { maxMappings }),
    ...(withoutFeature === undefined ? {} : { withoutFeatures: 1 << withoutFeature }),
    ...(lastEndpoint === undefined
      ? {}
      : { endpoints: [{ first: 0, last: lastEndpoint, format: "vtd-ss" }] }),
    ...(reserved === undefined ? {} : {
      reserved: reserved.map(({ range, endpoint, msi }) => ({
        ...parseAddressRange(range)!,
        subtype: msi === true ? RESV_MEM_MSI : RESV_MEM_RESERVED,
        ...(endpoint === undefined ? {} : { firstEndpoint: endpoint, lastEndpoint: endpoint }),
      })),
    }),
  };
}
