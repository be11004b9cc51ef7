/**
 * The API socket: HTTP with JSON about the live state of a device; `docs/api.md` describes each route.
 *
 * One file a route, and `server.ts` that knows of HTTP. Addresses are hexadecimal texts of byte addresses;
 * ids, counts and sizes are numbers. May import the rest of `device`.
 *
 * @module
 */
export * from "./context.ts";
export * from "./dma.ts";
export * from "./mappings.ts";
export * from "./server.ts";
export * from "./state.ts";
export * from "./translate.ts";
