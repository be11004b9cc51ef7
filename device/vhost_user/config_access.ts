/**
 * GET_CONFIG and SET_CONFIG, as the known front ends send them: QEMU reads and writes the whole space with
 * flags 0, cloud-hypervisor and crosvm each access with flags 0 or 1, OpenVMM 256 bytes whatever there is.
 *
 * cloud-hypervisor and crosvm show the guest 4 KiB of configuration and pass each access on with its offset, so any
 * guest reaches beyond the device's space. As virtiofsd and qemu-storage-daemon do, such a read returns zeros and
 * such a write is ignored: an empty answer hangs rust-vmm's front end, and a refused write ends cloud-hypervisor.
 */
import type { VirtioDevice } from "../virtio_device.ts";
import { CONFIG_HEADER_BYTES, MAX_CONFIG } from "./protocol.ts";

/**
 * Flags of a write. 1 is a live migration's by the protocol, and some front ends set it for the driver's writes, too;
 * rust-vmm numbers them WRITABLE 1 and LIVE_MIGRATION 2. All writes are treated alike.
 */
const KNOWN_FLAGS = 3;

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
  if (length > MAX_CONFIG) return `it asks for ${length} bytes, more than ${MAX_CONFIG}`;
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
  if (size !== CONFIG_HEADER_BYTES + length) return `its size is ${size} with ${length} bytes`;
  if ((flags & ~KNOWN_FLAGS) !== 0) return `its flags are ${flags}`;
  const there = lengthWithin(device, offset, length);
  if (there > 0) {
    device.writeConfig(payload.slice(CONFIG_HEADER_BYTES, CONFIG_HEADER_BYTES + there), offset);
  }
  return undefined;
}

function lengthWithin(device: VirtioDevice, offset: number, length: number): number {
  return Math.min(length, Math.max(0, device.configSize - offset));
}
