/**
 * A virtio-iommu that a VMM attaches over vhost-user, with the devices behind it.
 *
 * ```ts
 * import { DeviceServer, IommuDevice, Log } from "@viommu/viommu";
 * import { UnixListener } from "@viommu/viommu/host";
 *
 * const device = new IommuDevice({
 *   endpoints: [{ first: 0, last: 0xff, format: "vtd-ss" }],
 *   reserved: [],
 *   bypass: true,
 *   maxDomains: 64,
 *   maxMappings: 65536,
 *   maxTableMemory: 16 << 20,
 *   tableBaseFrame: 2 ** 31,
 * });
 * // After a request the rings are polled for up to 200 µs before the server sleeps.
 * const server = new DeviceServer(device, new Log("warn"), 200);
 * const folder = Deno.makeTempDirSync();
 * const served = server.run(UnixListener.listen(`${folder}/viommu.sock`));
 * // A VMM can connect now, until:
 * server.stop();
 * await served;
 * device.close();
 * Deno.removeSync(folder, { recursive: true });
 * ```
 *
 * {@linkcode ServedEndpoints} holds devices behind the IOMMU, and is served as a poll source of the server; so is
 * {@linkcode ApiServer}. `buildViot` and `addVirtioIommu` make the tables by which a guest finds the IOMMU. The model
 * alone, without a socket, is `@viommu/viommu/iommu`.
 *
 * @module
 */
export { type Address, addressText, endpointText, parseEndpoint } from "./address.ts";
export {
  type ApiAccess,
  type ApiContext,
  ApiServer,
  type EndpointChanges,
  type ProcessState,
  type RemovalState,
  type SandboxState,
  type ServedEndpointState,
  type Work,
} from "./api/mod.ts";
export { VERSION } from "./command/version.ts";
export {
  BlockDevice,
  BlockDisk,
  DmaCounters,
  type Draining,
  type EndpointDevice,
  EndpointProxy,
  type EndpointProxyOptions,
  EndpointRelay,
  type EndpointRelayOptions,
  EndpointService,
  type EndpointServiceOptions,
  EntropyDevice,
  type HostDeviceModel,
  type HostDeviceOpener,
  type HostDeviceState,
  HostEndpoint,
  type HostEndpointOptions,
  type HostFiles,
  type HostPlace,
  HostRandom,
  type OpenedHostDevice,
  ProxyCounters,
  type RandomSource,
  RecentTimes,
  RelayCounters,
  type RelayedType,
  relayedType,
  Removal,
  type Replay,
  SeededRandom,
  type ServedEndpoint,
  ServedEndpoints,
  type WriteOnly,
} from "./endpoint/mod.ts";
export {
  addVirtioIommu,
  buildViot,
  type DeviceTree,
  type DeviceTreeNode,
  type DeviceTreeProperty,
  type MemoryReservation,
  readDeviceTree,
  type Topology,
  writeDeviceTree,
} from "./firmware/mod.ts";
export { type DeviceOptions, type EndpointRange, IommuDevice } from "./iommu/mod.ts";
export { Log, LOG_LEVELS, type LogLevel } from "./log.ts";
export type { PollSource } from "./poll_source.ts";
export { BUCKET_SECONDS, ServiceTimes } from "./service_times.ts";
export { DeviceServer, type WarmUp, warmUp } from "./serving/mod.ts";
export type { Refusal, ResetKind, StartSign, StartVerdict, VirtioDevice } from "./virtio_device.ts";
