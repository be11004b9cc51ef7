/**
 * The virtio-iommu device model and everything it is attached through.
 *
 * `iommu/` is the model, `vhost_user/` the protocol, `endpoint/` what is behind the IOMMU, `serving/` the loop, `api/`
 * the API socket, `command/` the command line, `firmware/` what tells the guest, and `host/` libc through FFI. May import
 * `iommufd`, `pagetable` and `vring`; `README.md` has the folders and follows a MAP.
 *
 * @module
 */
export * from "./address.ts";
export * from "./api/mod.ts";
export * from "./command/version.ts";
export * from "./endpoint/mod.ts";
export * from "./firmware/mod.ts";
export * from "./iommu/mod.ts";
export * from "./log.ts";
export * from "./poll_source.ts";
export * from "./serving/mod.ts";
export * from "./virtio_device.ts";
