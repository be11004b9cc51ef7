/**
 * What firmware tells a guest: which endpoints are behind which virtio-iommu, as an ACPI VIOT table (ACPI 6.5, 5.2.34)
 * or in a device tree (Devicetree Specification 0.4).
 *
 * @module
 */
export * from "./device_tree.ts";
export * from "./device_tree_iommu.ts";
export * from "./device_tree_writer.ts";
export * from "./viot.ts";
