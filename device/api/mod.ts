/**
 * The API socket: HTTP with JSON about the live state of a device; `docs/api.md` describes each route.
 *
 * One file a route. `server.ts` and `connection.ts` know of sockets and HTTP, `work.ts` of how much may be done at a
 * time. Addresses are hexadecimal texts of byte addresses; ids, counts and sizes are numbers. May import the rest of
 * `device`.
 *
 * @module
 */
export * from "./context.ts";
export * from "./dma.ts";
export * from "./endpoints.ts";
export * from "./health.ts";
export * from "./mappings.ts";
export * from "./metric_families.ts";
export * from "./metrics.ts";
export * from "./moved.ts";
export * from "./relay_state.ts";
export * from "./routes.ts";
export * from "./server.ts";
export * from "./state.ts";
export * from "./telemetry.ts";
export * from "./translate.ts";
export * from "./work.ts";
