/** The model of the IOMMU, as devices of the host are told to it. */
import type { HostDeviceModel } from "../endpoint/mod.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";

/** The model of a device. */
export function hostModel({ passthrough, hosts, endpoints }: IommuDevice): HostDeviceModel {
  return {
    add: (device) => passthrough.add(device),
    remove: (endpoint) => passthrough.remove(endpoint),
    get mayBeReset() {
      return hosts.mayBeReset;
    },
    letFirmwarePass: () => hosts.letFirmwarePass(),
    placeOf: (endpoint) => hosts.placeOf(endpoint),
    domainOf: (endpoint) => endpoints.seen(endpoint)?.domain?.id,
  };
}
