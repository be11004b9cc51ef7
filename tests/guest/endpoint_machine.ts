/**
 * A guest with a virtio-rng and a virtio-blk that we serve behind the IOMMU.
 *
 * @module
 */
import { isLong } from "../long_mode.ts";
import type { Arch } from "./lab/arch.ts";
import { EDU_SLOT, type Guest, type Lab } from "./lab/mod.ts";
import { ServedDevice } from "./served_device.ts";
import { BELOW_END_OF_RAM, bootTranslated } from "./translated_machine.ts";

/** Endpoint ids of the two devices. */
export const RNG = 0x18;
export const BLK = 0x30;
/** The endpoint of a device that has no driver. */
export const OTHER = EDU_SLOT * 8;
/** The seed of the rng's bytes. */
export const SEED = 20_261_122;
/** Bytes of the disk: in the long mode, enough to measure its throughput. */
export const DISK = isLong ? 80 << 20 : 32 << 20;
/** The name of the disk. */
export const SERIAL = "viommu-test";

/** How the machine differs from the usual one. */
export interface EndpointMachineOptions {
  /** Format of the endpoints' tables. */
  readonly format: string;
  /** Format of the endpoint in slot 4, if another. */
  readonly otherFormat?: string;
  /** Whether the guest invalidates with every unmapping. */
  readonly strict?: boolean;
  /** Processor, x86-64 when missing. */
  readonly arch?: Arch;
}

/**
 * Options of `serve` for the I/O addresses. QEMU looks up ring addresses in RAM although they are I/O virtual, so they
 * must lie in its range. The devices write their interrupts untranslated, so that range is reserved.
 */
const PLACE_OPTIONS: Readonly<Record<Arch, readonly string[]>> = {
  x86_64: BELOW_END_OF_RAM,
  aarch64: ["--input-range", "0x40000000-0x5fffffff", "--msi-region", "0x8090000-0x8090fff"],
};

/** The part of an endpoint's state that the tests look at. */
export interface EndpointState {
  readonly id: number;
  readonly domain: number | null;
  readonly format: string;
  readonly faults: number;
  readonly device?: {
    readonly type: string;
    readonly connected: boolean;
    readonly requests: number;
    readonly readBytes: number;
    readonly writtenBytes: number;
    readonly iotlbHits: number;
    readonly iotlbMisses: number;
    readonly faults: number;
  };
}

/** The state of one endpoint. */
export async function endpointState(device: ServedDevice, id: number): Promise<EndpointState> {
  const endpoints = (await device.state()).endpoints as readonly EndpointState[];
  const found = endpoints.find((endpoint) => endpoint.id === id);
  if (found === undefined) throw device.failure(`Endpoint ${id} is not in the state`);
  return found;
}

/** Modules of the devices' drivers. */
export const DRIVERS: Readonly<Record<string, string>> = { "virtio-rng": "", "virtio_blk": "" };

/** Starts the device with an empty disk in the folder. */
export async function serveEndpoints(
  folder: string,
  options: EndpointMachineOptions,
): Promise<ServedDevice> {
  await Deno.writeFile(`${folder}/disk.img`, new Uint8Array(0));
  await Deno.truncate(`${folder}/disk.img`, DISK);
  const { format, otherFormat = format } = options;
  const disk = `file=${folder}/disk.img,serial=${SERIAL}`;
  return await ServedDevice.start(folder, [
    ...PLACE_OPTIONS[options.arch ?? "x86_64"],
    ...["--endpoint", `0-0xffff,format=${format}`],
    ...["--endpoint", `${OTHER},format=${otherFormat}`],
    ...["--endpoint-device", `rng:00:03.0,socket=${folder}/rng.sock,seed=${SEED}`],
    ...["--endpoint-device", `blk:00:06.0,socket=${folder}/blk.sock,queues=2,${disk}`],
  ]);
}

/** Boots a guest with both devices in the slots of their endpoints. */
export async function bootEndpoints(
  lab: Lab,
  folder: string,
  device: ServedDevice,
  options: EndpointMachineOptions,
): Promise<Guest> {
  return await bootTranslated(lab, folder, device, {
    modules: DRIVERS,
    programs: ["vfio_rng"],
    strict: options.strict ?? false,
    devices: [...endpointArguments(folder, 2), "-device", `edu,addr=${EDU_SLOT}`],
  });
}

/** QEMU arguments of both devices; `queues` of the disk. */
export function endpointArguments(folder: string, queues: number): readonly string[] {
  const disk = `virtio-id=2,num_vqs=${queues},vq_size=128,config_size=60`;
  return [
    ...slotArguments(folder, "rng", "virtio-id=4,num_vqs=1,vq_size=64,config_size=0", RNG >> 3),
    ...slotArguments(folder, "blk", disk, BLK >> 3),
  ];
}

function slotArguments(folder: string, name: string, fields: string, slot: number): string[] {
  const device = `vhost-user-test-device-pci,chardev=${name},${fields}`;
  return [
    ...["-chardev", `socket,id=${name},path=${folder}/${name}.sock`],
    ...["-device", `${device},iommu_platform=on,addr=${slot}`],
  ];
}
