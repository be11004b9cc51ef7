/**
 * Devices behind the IOMMU: guest memory as an endpoint sees it, and what keeps translations.
 *
 * May import `device`, `pagetable` and `vring`.
 *
 * @module
 */
export * from "./endpoint_memory.ts";
export * from "./iotlb.ts";
