/**
 * GET_CONFIG and SET_CONFIG in a form that every back end accepts.
 *
 * cloud-hypervisor and crosvm show the guest 4 KiB of configuration and pass every access. libvhost-user accepts 256
 * bytes and exits on more; the rust-vmm crates refuse an access beyond the device's own space with an empty reply, on
 * which rust-vmm's front end hangs. So accesses beyond 256 bytes are answered here: reads with zeros, and writes are
 * ignored. A read behind the last byte that the back end has returned is answered with zeros as well.
 */
import { CONFIG_HEADER_BYTES, type Connection, MAX_CONFIG, Request } from "../../vhost_user/mod.ts";

/** Most bytes of configuration that a back end is asked for: the limit of libvhost-user. */
const BACK_END_BYTES = 256;
const FLAGS_AT = 8;
/** rust-vmm's value of the flag that is 1 in the protocol. */
const FLAG_LIVE_MIGRATION = 2;

/** An access of the front end. */
export interface ConfigAccess {
  /** First byte. */
  readonly offset: number;
  /** Number of bytes. */
  readonly length: number;
  /** Flags of the message. */
  readonly flags: number;
  /** How many of the first bytes the back end is asked for. */
  readonly passed: number;
}

/**
 * The access in the message just read; `undefined` if it is another message, or malformed, which the back end decides.
 */
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

/** The payload that the back end is sent for the message just read. */
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

/** The reply to GET_CONFIG: the bytes in the back end's payload, and zeros for the rest. */
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
