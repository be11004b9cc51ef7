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
