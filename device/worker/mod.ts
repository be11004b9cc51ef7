/**
 * The process that serves sessions which another one holds; see README.md.
 */
export { HeldServer, type HeldServerOptions } from "./held_server.ts";
export { HolderChannel, startFile, type WorkerStart } from "./holder_channel.ts";
