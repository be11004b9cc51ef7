/**
 * GET_CONFIG and SET_CONFIG on their way to a back end: as every front end sends them, as any back end takes them.
 *
 * cloud-hypervisor and crosvm show the guest 4 KiB of configuration and pass each access on. libvhost-user takes
 * accesses of 256 bytes and ends with a longer one; the rust-vmm crates refuse what is beyond the device's own space,
 * with an empty answer for which rust-vmm's front end waits in vain. So what lies beyond 256 bytes is answered here, as
 * zeros and by ignoring, and where a back end has nothing to give behind what it gave before, that is zeros, too.
 *
 * @module
 */
import { CONFIG_HEADER_BYTES, type Connection, MAX_CONFIG, Request } from "../../vhost_user/mod.ts";

/** Bytes of configuration that a back end is asked for: all that libvhost-user has. */
const BACK_END_BYTES = 256;
const FLAGS_AT = 8;
/** rust-vmm's number of the flag that the protocol has as 1. */
const FLAG_LIVE_MIGRATION = 2;

/** An access as the front end asked for it. */
export interface ConfigAccess {
  /** First byte. */
  readonly offset: number;
  /** How many. */
  readonly length: number;
  /** Flags of the message. */
  readonly flags: number;
  /** How many of them the back end is asked for: those at the beginning. */
  readonly passed: number;
}

/** The access in the message just read; `undefined` if it is none, or of a form that is the back end's to judge. */
export function readConfigAccess({ request, data, size }: Connection): ConfigAccess | undefined {
  if (request !== Request.GET_CONFIG && request !== Request.SET_CONFIG) return undefined;
  if (size < CONFIG_HEADER_BYTES) return undefined;
  const offset = data.getUint32(0, true);
  const length = data.getUint32(4, true);
  const isWhole = size === CONFIG_HEADER_BYTES + length ||
    (request === Request.GET_CONFIG && size === CONFIG_HEADER_BYTES);
  if (!isWhole || length > MAX_CONFIG) return undefined;
  const passed = Math.min(length, Math.max(0, BACK_END_BYTES - offset));
  return { offset, length, flags: data.getUint32(FLAGS_AT, true), passed };
}

/** What a back end is sent of the message just read. */
export function passedPayload(
  { request, payload, size }: Connection,
  { passed, flags }: ConfigAccess,
): Uint8Array {
  const most = CONFIG_HEADER_BYTES + passed;
  const part = payload.slice(0, Math.min(size, most));
  const header = new DataView(part.buffer);
  header.setUint32(4, passed, true);
  if (request === Request.SET_CONFIG && (flags & FLAG_LIVE_MIGRATION) !== 0) {
    header.setUint32(FLAGS_AT, (flags & ~FLAG_LIVE_MIGRATION) | 1, true);
  }
  return part;
}

/** The answer to GET_CONFIG with what the back end gave, a payload, and zeros in place of what it did not. */
export function configAnswer(
  { offset, length, flags, passed }: ConfigAccess,
  given: Uint8Array,
): Uint8Array {
  const answer = new Uint8Array(CONFIG_HEADER_BYTES + length);
  const header = new DataView(answer.buffer);
  header.setUint32(0, offset, true);
  header.setUint32(4, length, true);
  header.setUint32(FLAGS_AT, flags, true);
  const bytes = given.subarray(CONFIG_HEADER_BYTES, CONFIG_HEADER_BYTES + passed);
  answer.set(bytes, CONFIG_HEADER_BYTES);
  return answer;
}
