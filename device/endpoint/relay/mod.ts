/**
 * Back ends of other programs behind the IOMMU, confined by it: requests are copied through memory of our own, which
 * is all that a back end is given. `README.md` follows a request.
 */
export { EndpointRelay, type EndpointRelayOptions } from "./endpoint_relay.ts";
export { RelayCounters } from "./relay_counters.ts";
export { RELAYED_TYPE_NAMES, type RelayedType, relayedType, type Replay } from "./relayed_types.ts";
