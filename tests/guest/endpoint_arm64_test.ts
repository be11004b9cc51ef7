/**
 * An arm64 guest's rng and disk behind the IOMMU, with SMMUv3 tables. In the long mode (`VIOMMU_TEST=full`) only.
 *
 * As on x86, QEMU passes I/O virtual addresses on only if the machine has an IOMMU of QEMU's: here an SMMUv3, which
 * the guest does not find, for the device tree names our device instead.
 */
import { assert, assertEquals } from "@std/assert";
import { isLong } from "../long_mode.ts";
import { arm64Machine } from "./arm64_machine.ts";
import { checkFileSystem, checkRandom } from "./endpoint_checks.ts";
import { DRIVERS, endpointArguments, serveEndpoints } from "./endpoint_machine.ts";
import { Guest, type Lab, labTests, prepareLab } from "./lab/mod.ts";
import { temporaryFolder } from "./temporary_folder.ts";

async function driveDevices(lab: Lab, format: string): Promise<void> {
  await using folder = await temporaryFolder();
  await using device = await serveEndpoints(folder.path, { format, arch: "aarch64" });
  const machine = await arm64Machine(lab, device, folder.path);
  await lab.writeInitramfs(`${folder.path}/initramfs.gz`, DRIVERS);
  // A guest with one processor leaves a second queue unused, and QEMU looks up its rings too: at 0, where there is no RAM.
  const devices = ["-M", "iommu=smmuv3", ...endpointArguments(folder.path, 1)];
  await using guest = await Guest.boot(lab.qemu, [...machine, ...devices]);
  assertEquals(await guest.run("uname -m"), ["aarch64"]);
  await checkRandom(guest, device);
  await checkFileSystem(guest, device, `${folder.path}/disk.img`, "aarch64");
  const { requests, faults } = await device.state();
  assertEquals(faults, { reported: 0, dropped: 0 });
  for (const [type, statuses] of Object.entries(requests)) {
    assertEquals(Object.keys(statuses), ["OK"], type);
  }
  const [interrupts] = await guest.run("grep -c virtio /proc/interrupts");
  assert(Number(interrupts) > 0, "the devices interrupt the guest");
  await guest.powerOff();
  assertEquals(await device.stop(), 0);
}

if (isLong) {
  await labTests(() => prepareLab("aarch64"), {
    "An arm64 guest's rng and disk work behind SMMUv3 stage 1": (lab) =>
      driveDevices(lab, "smmuv3-s1"),
    "An arm64 guest's rng and disk work behind SMMUv3 stage 2": (lab) =>
      driveDevices(lab, "smmuv3-s2"),
  });
}
