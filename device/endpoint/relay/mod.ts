/**
 * Back ends of other programs behind the IOMMU, confined by it: requests pass through memory of ours, and a back end gets
 * that alone. `README.md` follows a request through it.
 *
 * May import `device`, `vring`, and of the folder above what serves a device.
 *
 * @module
 */
export { EndpointRelay, type EndpointRelayOptions } from "./endpoint_relay.ts";
export { RelayCounters } from "./relay_counters.ts";
export { RELAYED_TYPE_NAMES, type RelayedType, relayedType, type Replay } from "./relayed_types.ts";
