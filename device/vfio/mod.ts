/**
 * Devices of the host that are passed through to the guest, through the kernel's iommufd.
 *
 * `README.md` explains the subject. {@linkcode HostDevices} is what a program uses; the model knows a device as a
 * `HostDevice` and what makes its page tables as a `HostIommu` (`device/iommu/host_devices.ts`).
 *
 * @module
 */
export { type DeviceCalls, HOST_CALLS, type KernelCalls } from "./iommufd.ts";
export { type DeviceFiles, HostDevices, type HostPlaces, OpenDevice } from "./host_devices.ts";
export { type Aperture } from "./kernel_table.ts";
