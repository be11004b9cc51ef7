/**
 * The process that holds sessions while others serve them; see README.md.
 *
 * May import `device/host` and `device/log.ts`: what it holds it does not look into.
 */
export { Holder, type HolderOptions } from "./holder.ts";
export { decode, encode, HeldFile, type Packet, packet, PacketKind } from "./packet.ts";
export { ProcessRecord } from "./process_record.ts";
export { WorkerPage } from "./worker_page.ts";
export { readSettings, type WorkerSettings } from "./worker_texts.ts";
