/**
 * The plain machine: the device, an `edu` for the guest's VFIO, and a monitor.
 *
 * @module
 */
import { EDU_SLOT, Guest, type Lab, machineArguments, Monitor } from "./lab/mod.ts";
import { attachArguments, ServedDevice } from "./served_device.ts";

/** The endpoint of the `edu`. */
export const EDU_ENDPOINT: number = EDU_SLOT * 8;
/** The same as PCI address in the guest. */
export const EDU_ADDRESS: string = `0000:00:0${EDU_SLOT}.0`;

/** A booted guest on the plain machine. Dispose of it in every case. */
export interface PlainGuest extends AsyncDisposable {
  readonly guest: Guest;
  readonly device: ServedDevice;
  readonly monitor: Monitor;
}

/** Serves a device with some options and boots a guest that may restart; their files are in a folder. */
export async function bootPlain(
  lab: Lab,
  folder: string,
  options: readonly string[] = [],
): Promise<PlainGuest> {
  await using started = new AsyncDisposableStack();
  const initramfs = `${folder}/initramfs.gz`;
  await lab.writeInitramfs(initramfs);
  const device = started.use(await ServedDevice.start(folder, options));
  const machine = machineArguments("x86_64", {
    kernel: lab.kernel,
    initramfs,
    restarts: true,
    devices: [
      ...await attachArguments(device, folder),
      ...Monitor.arguments(`${folder}/monitor.sock`),
      ...["-device", `edu,addr=${EDU_SLOT}`],
    ],
  });
  const guest = started.use(await Guest.boot(lab.qemu, machine));
  const monitor = started.use(await Monitor.connect(`${folder}/monitor.sock`));
  const kept = started.move();
  return { guest, device, monitor, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}
