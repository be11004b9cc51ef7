/**
 * Devices behind the IOMMU: guest memory as an endpoint sees it, what keeps translations, and the devices that
 * live there (virtio-rng, virtio-blk), each served on a socket of its own; back ends of other programs, in `relay/` (confined)
 * and `proxy/` (translating for themselves).
 *
 * The devices themselves (`entropy.ts`, `block/`) get queues and do not know that there is an IOMMU; `endpoint_memory.ts`,
 * `endpoint_service.ts`, `ring_pins.ts`, `proxy/` and `relay/` do. May import `device/host`, `device/iommu`,
 * `device/serving`, `device/vhost_user`, the files of `device` itself, `iommufd`, `pagetable` and `vring`.
 *
 * @module
 */
export * from "./block/block_device.ts";
export * from "./block/disk.ts";
export * from "./chain_access.ts";
export * from "./endpoint_device.ts";
export * from "./endpoint_memory.ts";
export * from "./endpoint_service.ts";
export * from "./entropy.ts";
export * from "./iotlb.ts";
export * from "./proxy/mod.ts";
export * from "./random_source.ts";
export * from "./relay/mod.ts";
export * from "./served_endpoint.ts";
export * from "./served_endpoints.ts";
