/**
 * Serves a device: one VMM after another, and in one thread everything behind the IOMMU as well.
 *
 * `README.md` follows one turn of the loop.
 */
export { DeviceServer } from "./device_server.ts";
export { type WarmUp, warmUp } from "./warm_up.ts";
