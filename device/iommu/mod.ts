/**
 * The virtio-iommu device model: requests, configuration space, endpoints, domains and fault reports.
 *
 * It knows no host: neither sockets nor FFI nor Deno, so an emulator written in TypeScript can embed it, in Deno, in
 * Node and in a browser. The emulator gives it guest memory and running queues, calls {@linkcode IommuDevice.service}
 * when the guest kicks, and asks {@linkcode IommuDevice.walk} where an access of an endpoint leads.
 *
 * ```ts
 * import { attachRequest, IommuDevice } from "@viommu/viommu/iommu";
 * import { READ } from "@viommu/viommu/pagetable";
 *
 * const device = new IommuDevice({
 *   endpoints: [{ first: 0, last: 0xff, format: "vtd-ss" }],
 *   reserved: [],
 *   bypass: false,
 *   maxDomains: 64,
 *   maxMappings: 65536,
 *   maxTableMemory: 16 << 20,
 *   tableBaseFrame: 2 ** 31,
 * });
 * device.walk(8, 0x1000, READ).ok; // false: nothing is attached
 * attachRequest(1, 8); // the readable part of a request, as a driver writes it
 * device.close();
 * ```
 *
 * `examples/embed_iommu.ts` drives one over a virtqueue. `README.md` follows a request.
 *
 * @module
 */
export { type DeviceOptions, IommuDevice, type LockableMemory } from "./iommu_device.ts";
export * from "./config_space.ts";
export * from "./domain.ts";
export * from "./driver_requests.ts";
export * from "./endpoint_table.ts";
export * from "./fault_events.ts";
export * from "./guest_life.ts";
export * from "./hardware.ts";
export * from "./iotlb_listeners.ts";
export * from "./memory_bound.ts";
export * from "./pieces.ts";
export * from "./request.ts";
export * from "./requests.ts";
export * from "./reserved_region.ts";
export * from "./status.ts";
export * from "./turn.ts";
export * from "./virtio_iommu.ts";
export * from "./wire.ts";
