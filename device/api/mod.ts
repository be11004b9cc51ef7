/**
 * The API socket: HTTP with JSON about the live state of a device; `docs/api.md` describes each route.
 *
 * Exported is what serves the socket, what it needs of its surroundings, and the answers that a client gets. Addresses
 * are hexadecimal texts of byte addresses; ids, counts and sizes are numbers.
 */
export {
  type ApiAccess,
  type ApiContext,
  ApiError,
  type EndpointChanges,
  type ProcessState,
  type RouteAnswer,
  type RouteRequest,
  type SandboxState,
} from "./context.ts";
export type { DmaBody, DmaResult } from "./dma.ts";
export { DRAIN_MS_MAX, type RemovalState, type ServedEndpointState } from "./endpoints.ts";
export type { HealthState, VersionState } from "./health.ts";
export type { MappingState } from "./mappings.ts";
export type { MovedState } from "./moved.ts";
export type { EndpointRelayState } from "./relay_state.ts";
export { ApiServer } from "./server.ts";
export type {
  DomainState,
  EndpointDeviceState,
  EndpointProxyState,
  EndpointState,
  State,
  TableState,
} from "./state.ts";
export { exportMetrics } from "./telemetry.ts";
export type { FaultState, TranslateAnswer } from "./translate.ts";
export type { Work } from "./work.ts";
