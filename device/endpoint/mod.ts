/**
 * Devices behind the IOMMU: an entropy device and a disk of our own, and back ends of other programs, confined
 * (`relay/`) or translating for themselves (`proxy/`). Each is served on a socket of its own.
 *
 * The devices (`entropy.ts`, `block/`) are given queues and do not know of the IOMMU; `endpoint_memory.ts`,
 * `endpoint_service.ts`, `ring_pins.ts`, `proxy/` and `relay/` do. `README.md` follows a request.
 */
export { BlockDevice } from "./block/block_device.ts";
export { BlockDisk } from "./block/disk.ts";
export { DmaCounters, type Draining, type EndpointDevice } from "./endpoint_device.ts";
export { EndpointService, type EndpointServiceOptions } from "./endpoint_service.ts";
export { EntropyDevice } from "./entropy.ts";
export {
  EndpointProxy,
  type EndpointProxyOptions,
  ProxyCounters,
  type WriteOnly,
} from "./proxy/mod.ts";
export {
  type HostDeviceModel,
  type HostDeviceOpener,
  type HostDeviceState,
  HostEndpoint,
  type HostEndpointOptions,
  type HostPlace,
  type OpenedHostDevice,
} from "./host_endpoint.ts";
export { type HostFiles, takeVmmFiles } from "./vmm_files.ts";
export { HostRandom, type RandomSource, SeededRandom } from "./random_source.ts";
export { RecentTimes } from "./recent_times.ts";
export {
  EndpointRelay,
  type EndpointRelayOptions,
  RelayCounters,
  RELAYED_TYPE_NAMES,
  type RelayedType,
  relayedType,
  type Replay,
} from "./relay/mod.ts";
export type { ServedEndpoint } from "./served_endpoint.ts";
export { Removal, ServedEndpoints } from "./served_endpoints.ts";
