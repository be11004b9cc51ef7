/**
 * What a guest maps through VFIO is what a device behind the IOMMU can reach, page by page.
 *
 * The guest's own `/proc/self/pagemap` says where each of its pages lies in guest-physical memory; the API
 * socket says where our tables take the device. Where those hold host frames, QEMU's page map says where guest memory is.
 */
import { assertEquals } from "@std/assert";
import { HostFrames } from "./host_frames.ts";
import { seesFrames } from "../device/host/page_frames.ts";
import { isLong } from "../long_mode.ts";
import { EDU_SLOT, Guest, type Lab, labTests, machineArguments, prepareLab } from "./lab/mod.ts";
import { mapAndCompare, VTD_SECOND_STAGE } from "./mapping_comparison.ts";
import { Random, seed } from "./random.ts";
import { attachArguments, ServedDevice } from "./served_device.ts";
import { temporaryFolder } from "./temporary_folder.ts";

/** @param isHost Whether tables hold host-physical addresses. */
async function mapInGuest(lab: Lab, isHost: boolean): Promise<void> {
  await using folder = await temporaryFolder();
  const initramfs = `${folder.path}/initramfs.gz`;
  await lab.writeInitramfs(initramfs);
  await using device = await ServedDevice.start(folder.path, isHost ? ["--frames", "host"] : []);
  const machine = machineArguments("x86_64", {
    kernel: lab.kernel,
    initramfs,
    devices: [...await attachArguments(device, folder.path), "-device", `edu,addr=${EDU_SLOT}`],
  });
  await using guest = await Guest.boot(lab.qemu, machine);
  using host = isHost ? new HostFrames(guest.pid) : undefined;
  await mapAndCompare(guest, device, EDU_SLOT * 8, VTD_SECOND_STAGE, new Random(seed()), host);
  await guest.closeVfio();
  await guest.powerOff();
  assertEquals(await device.stop(), 0);
}

await labTests(() => prepareLab("x86_64"), {
  "Every page a guest maps through VFIO translates as the guest says, and none after it is unmapped":
    (lab) => mapInGuest(lab, false),
});

const HOST_FRAMES =
  "With --frames host every page leads to the host frame that QEMU's page map has";

// A boot of its own, for the long mode. Without CAP_SYS_ADMIN the kernel shows no frames, and the run says by name what
// it did not test.
if (isLong && !seesFrames) Deno.test({ name: HOST_FRAMES, ignore: true, fn() {} });
else if (isLong) {
  await labTests(() => prepareLab("x86_64"), { [HOST_FRAMES]: (lab) => mapInGuest(lab, true) });
}
