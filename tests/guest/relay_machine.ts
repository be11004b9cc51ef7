/**
 * A guest with four devices whose back ends are unmodified programs of other projects: a disk, a file system, a network
 * card and a vsock, each behind our IOMMU and confined by it.
 *
 * @module
 */
import { until } from "../until.ts";
import { exists } from "./lab/cache.ts";
import { type BackEnds, type Guest, type Lab, LineProcess } from "./lab/mod.ts";
import { ServedDevice } from "./served_device.ts";
import { BELOW_END_OF_RAM, bootTranslated } from "./translated_machine.ts";

/** The devices. */
export const NAMES = ["blk", "fs", "net", "vsock"] as const;
/** One of them. */
export type RelayedName = typeof NAMES[number];

/** PCI slot of each, and QEMU's fields for it. */
const DEVICES: Readonly<Record<RelayedName, { readonly slot: number; readonly fields: string }>> = {
  blk: { slot: 3, fields: "virtio-id=2,num_vqs=1,vq_size=128,config_size=60" },
  fs: { slot: 5, fields: "virtio-id=26,num_vqs=2,vq_size=128,config_size=40" },
  net: { slot: 6, fields: "virtio-id=1,num_vqs=2,vq_size=256,config_size=0" },
  vsock: { slot: 7, fields: "virtio-id=19,num_vqs=3,vq_size=128,config_size=8" },
};

/** The endpoint of a device. */
export function endpointOf(name: RelayedName): number {
  return DEVICES[name].slot * 8;
}

/** Bytes of the disk. */
export const DISK = 64 << 20;
/** The name of the file system. */
export const TAG = "shared";
/** The guest's address, and the host's as the guest sees it. */
export const GUEST_ADDRESS = "10.0.2.15";
export const HOST_ADDRESS = "10.0.2.2";
/** The host's port on the vsock. */
export const VSOCK_PORT = 1234;

/** Paths in a test's folder. */
export function places(folder: string) {
  return {
    listen: (name: RelayedName) => `${folder}/${name}.sock`,
    backEnd: (name: RelayedName) => `${folder}/${name}-backend.sock`,
    disk: `${folder}/disk.img`,
    shared: `${folder}/shared`,
    /** The socket for connections of the guest to {@linkcode VSOCK_PORT}. */
    vsock: `${folder}/vm_${VSOCK_PORT}`,
  };
}

/** The command of a back end. */
function commandOf(backEnds: BackEnds, name: RelayedName, folder: string): readonly string[] {
  const { backEnd, disk, shared } = places(folder);
  const socket = backEnd(name);
  switch (name) {
    case "blk":
      return [
        ...backEnds.storageDaemon,
        ...["--blockdev", `driver=file,node-name=disk,filename=${disk}`],
        "--export",
        `type=vhost-user-blk,id=blk,node-name=disk,writable=on,addr.type=unix,addr.path=${socket}`,
      ];
    case "fs":
      return [
        ...backEnds.virtiofsd,
        ...["--socket-path", socket, "--shared-dir", shared, "--tag", TAG, "--sandbox", "none"],
      ];
    case "net":
      return [
        ...backEnds.passt,
        ...["-f", "--vhost-user", "--socket-path", socket],
        ...["-a", GUEST_ADDRESS, "-n", "24", "-g", HOST_ADDRESS],
        ...["--map-host-loopback", HOST_ADDRESS],
      ];
    case "vsock":
      return [
        ...backEnds.vsock,
        ...["--guest-cid", "4", "--socket", socket, "--uds-path", `${folder}/vm`],
      ];
  }
}

/** Starts a back end; it listens when this returns. */
export async function startBackEnd(
  backEnds: BackEnds,
  name: RelayedName,
  folder: string,
): Promise<LineProcess> {
  const socket = places(folder).backEnd(name);
  // One that was killed leaves its socket behind.
  if (await exists(socket)) await Deno.remove(socket);
  const process = new LineProcess({
    title: name,
    command: commandOf(backEnds, name, folder),
  });
  try {
    await until(async () => process.ended || await exists(socket), `${name} listens`, 60_000);
    if (process.ended) throw process.failure("Ended instead of listening");
  } catch (error) {
    await process[Symbol.asyncDispose]();
    throw error;
  }
  return process;
}

/** The option of `serve` that relays a device. */
export function relayOption(name: RelayedName, folder: string): readonly string[] {
  const { listen, backEnd } = places(folder);
  const sockets = `listen=${listen(name)},backend=${backEnd(name)}`;
  return ["--endpoint-relay", `00:0${DEVICES[name].slot}.0,${sockets},type=${name}`];
}

/** QEMU arguments of a device in the slot of its endpoint. */
export function deviceOf(name: RelayedName, folder: string): readonly string[] {
  const { slot, fields } = DEVICES[name];
  return [
    ...["-chardev", `socket,id=${name},path=${places(folder).listen(name)}`],
    "-device",
    `vhost-user-test-device-pci,chardev=${name},${fields},iommu_platform=on,addr=${slot}`,
  ];
}

/** Starts the IOMMU with relays for some of the devices, and other options. */
export async function serveRelays(
  folder: string,
  names: readonly RelayedName[] = NAMES,
  others: readonly string[] = [],
): Promise<ServedDevice> {
  return await ServedDevice.start(folder, [
    ...BELOW_END_OF_RAM,
    ...names.flatMap((name) => relayOption(name, folder)),
    ...others,
  ]);
}

/** How the machine differs from the usual one. */
export interface RelayMachineOptions {
  /** Devices it has; all by default. */
  readonly names?: readonly RelayedName[];
  /** Whether the guest invalidates with every unmapping; it does unless told otherwise. */
  readonly strict?: boolean;
  /** Whether the guest's drivers use its memory untranslated; they do not unless told otherwise. */
  readonly passthrough?: boolean;
  /** QEMU arguments that add more devices. */
  readonly more?: readonly string[];
}

/** Boots a guest with the devices in the slots of their endpoints. */
export async function bootRelays(
  lab: Lab,
  folder: string,
  device: ServedDevice,
  options: RelayMachineOptions = {},
): Promise<Guest> {
  const { names = NAMES, strict = true, passthrough = false, more = [] } = options;
  return await bootTranslated(lab, folder, device, {
    modules: { "virtio_blk": "", "virtio_net": "", "vmw_vsock_virtio_transport": "" },
    programs: ["vsock_echo"],
    strict,
    passthrough,
    devices: [...names.flatMap((name) => deviceOf(name, folder)), ...more],
  });
}
