/**
 * An arm64 machine whose device tree puts its PCI devices behind our device.
 *
 * @module
 */
import {
  EDU_SLOT,
  type Lab,
  LineProcess,
  machineArguments,
  type MachineOptions,
} from "./lab/mod.ts";
import { deviceArguments, ServedDevice, viommu } from "./served_device.ts";

/** Milliseconds for QEMU to write a device tree. */
const DUMP_LIMIT = 60_000;

/** The slot of a root port: its driver, which is built into the kernel, asks for an interrupt by message. */
export const PORT_SLOT = 5;

/** Serves a device for an arm64 guest, which maps the doorbell of its interrupts itself. */
export async function arm64Device(
  folder: string,
  format: string,
  further: readonly string[] = [],
): Promise<ServedDevice> {
  const options = ["--endpoint", `0-0xffff,format=${format}`, "--msi-region", "none"];
  return await ServedDevice.start(folder, [...options, ...further]);
}

/** QEMU arguments of a machine with the device, an `edu` and a root port; writes its files into `folder`. */
export async function arm64Machine(
  lab: Lab,
  device: ServedDevice,
  folder: string,
): Promise<readonly string[]> {
  const initramfs = `${folder}/initramfs.gz`;
  await lab.writeInitramfs(initramfs);
  const bare: MachineOptions = { kernel: lab.kernel, initramfs, devices: [] };
  const tree = await patchedTree(lab, bare, folder);
  const port = `pcie-root-port,id=root_port,addr=${PORT_SLOT}`;
  const devices = ["-device", `edu,addr=${EDU_SLOT}`, "-device", port, "-dtb", tree];
  return machineArguments("aarch64", {
    ...bare,
    devices: [...deviceArguments(device), ...devices],
  });
}

/** Dumps the machine's device tree with QEMU and adds the IOMMU to it; the path of the result. */
async function patchedTree(lab: Lab, machine: MachineOptions, folder: string): Promise<string> {
  const dumped = `${folder}/virt.dtb`;
  const patched = `${folder}/viommu.dtb`;
  const args = machineArguments("aarch64", { ...machine, machine: `dumpdtb=${dumped}` });
  await using dump = new LineProcess({
    title: "dump",
    command: [...lab.qemu.command, ...args],
    env: lab.qemu.env,
  });
  const { code } = await dump.status(DUMP_LIMIT);
  if (code !== 0) throw dump.failure(`Ended with status ${code}`);
  await viommu("dtb", "--iommu", "00:02.0", "-i", dumped, "-o", patched);
  return patched;
}
