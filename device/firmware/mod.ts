/**
 * What firmware tells a guest: which endpoints are behind which virtio-iommu, as an ACPI VIOT table (ACPI 6.5, 5.2.34)
 * or in a device tree (Devicetree Specification 0.4).
 */
export {
  type DeviceTree,
  type DeviceTreeNode,
  type DeviceTreeProperty,
  type MemoryReservation,
  readDeviceTree,
} from "./device_tree.ts";
export { addVirtioIommu } from "./device_tree_iommu.ts";
export { writeDeviceTree } from "./device_tree_writer.ts";
export { buildViot, type Topology } from "./viot.ts";
