/**
 * GET_CONFIG and SET_CONFIG, with the habits of all front ends: QEMU reads and writes the whole space with
 * flags 0, cloud-hypervisor and crosvm each access with flags 0 or 1, OpenVMM 256 bytes whatever there is.
 *
 * @module
 */
import type { VirtioDevice } from "../virtio_device.ts";
import { CONFIG_HEADER_BYTES, MAX_CONFIG } from "./protocol.ts";

/** Flag of a write that a live migration makes; some front ends set it for the driver's writes, too. */
const FLAG_MIGRATION = 1;

/**
 * The reply to GET_CONFIG: as long as was asked, with zeros behind the device's own space.
 *
 * @param data The request's payload, of `size` bytes.
 * @returns the payload of the reply, or why it failed.
 */
export function configReply(
  device: VirtioDevice,
  data: DataView,
  size: number,
): Uint8Array | string {
  const offset = data.getUint32(0, true);
  const length = data.getUint32(4, true);
  const problem = checkRange(offset, length);
  if (problem !== undefined) return problem;
  // Most send room for the answer along, some only the header.
  if (size !== CONFIG_HEADER_BYTES && size !== CONFIG_HEADER_BYTES + length) {
    return `its size is ${size} and it asks for ${length} bytes`;
  }
  const reply = new Uint8Array(CONFIG_HEADER_BYTES + length);
  const header = new DataView(reply.buffer);
  header.setUint32(0, offset, true);
  header.setUint32(4, length, true);
  header.setUint32(8, data.getUint32(8, true), true);
  const there = lengthWithin(device, offset, length);
  if (there > 0) {
    device.readConfig(
      reply.subarray(CONFIG_HEADER_BYTES, CONFIG_HEADER_BYTES + there),
      offset,
    );
  }
  return reply;
}

/**
 * Passes SET_CONFIG on to the device, as far as its space reaches.
 *
 * @param payload The request's payload, of `size` bytes.
 * @returns nothing, or why it was refused.
 */
export function writeConfig(
  device: VirtioDevice,
  payload: Uint8Array<ArrayBuffer>,
  size: number,
): string | undefined {
  const data = new DataView(payload.buffer, payload.byteOffset, size);
  const offset = data.getUint32(0, true);
  const length = data.getUint32(4, true);
  const flags = data.getUint32(8, true);
  const problem = checkRange(offset, length);
  if (problem !== undefined) return problem;
  if (size !== CONFIG_HEADER_BYTES + length) return `its size is ${size} with ${length} bytes`;
  if (flags > FLAG_MIGRATION) return `its flags are ${flags}`;
  const there = lengthWithin(device, offset, length);
  if (there > 0) {
    device.writeConfig(payload.slice(CONFIG_HEADER_BYTES, CONFIG_HEADER_BYTES + there), offset);
  }
  return undefined;
}

function checkRange(offset: number, length: number): string | undefined {
  if (offset + length <= MAX_CONFIG) return undefined;
  return `${length} bytes from ${offset} are outside the config space of at most ${MAX_CONFIG}`;
}

function lengthWithin(device: VirtioDevice, offset: number, length: number): number {
  return Math.min(length, Math.max(0, device.configSize - offset));
}
