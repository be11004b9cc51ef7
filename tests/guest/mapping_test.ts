/**
 * What a guest maps through VFIO is what a device behind the IOMMU can reach, page by page.
 *
 * The guest's own `/proc/self/pagemap` says where each of its pages lies in guest-physical memory; the API
 * socket says where our tables take the device.
 */
import { assertEquals } from "@std/assert";
import { EDU_SLOT, Guest, type Lab, labTests, machineArguments, prepareLab } from "./lab/mod.ts";
import { mapAndCompare, VTD_SECOND_STAGE } from "./mapping_comparison.ts";
import { Random, seed } from "./random.ts";
import { attachArguments, ServedDevice } from "./served_device.ts";
import { temporaryFolder } from "./temporary_folder.ts";

async function mapInGuest(lab: Lab): Promise<void> {
  await using folder = await temporaryFolder();
  const initramfs = `${folder.path}/initramfs.gz`;
  await lab.writeInitramfs(initramfs);
  await using device = await ServedDevice.start(folder.path);
  const machine = machineArguments("x86_64", {
    kernel: lab.kernel,
    initramfs,
    devices: [...await attachArguments(device, folder.path), "-device", `edu,addr=${EDU_SLOT}`],
  });
  await using guest = await Guest.boot(lab.qemu, machine);
  await mapAndCompare(guest, device, EDU_SLOT * 8, VTD_SECOND_STAGE, new Random(seed()));
  await guest.closeVfio();
  await guest.powerOff();
  assertEquals(await device.stop(), 0);
}

await labTests(() => prepareLab("x86_64"), {
  "Every page a guest maps through VFIO translates as the guest says, and none after it is unmapped":
    mapInGuest,
});
