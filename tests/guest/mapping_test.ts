/**
 * Compares tables that hold host frames with the page map of QEMU. In the long mode (`VIOMMU_TEST=full`) only;
 * `boot_test.ts` compares tables that hold guest-physical addresses.
 */
import { assertEquals } from "@std/assert";
import { seesFrames } from "../device/host/page_frames.ts";
import { isLong } from "../long_mode.ts";
import { HostFrames } from "./host_frames.ts";
import { type Lab, labTests, prepareLab } from "./lab/mod.ts";
import { mapAndCompare, VTD_SECOND_STAGE } from "./mapping_comparison.ts";
import { bootPlain, EDU_ENDPOINT } from "./plain_machine.ts";
import { Random, seed } from "./random.ts";
import { temporaryFolder } from "./temporary_folder.ts";

async function compareFrames(lab: Lab): Promise<void> {
  await using folder = await temporaryFolder();
  await using plain = await bootPlain(lab, folder.path, ["--frames", "host"]);
  const { guest, device } = plain;
  using host = new HostFrames(guest.pid);
  await mapAndCompare(guest, device, EDU_ENDPOINT, VTD_SECOND_STAGE, new Random(seed()), host);
  await guest.closeVfio();
  await guest.powerOff();
  assertEquals(await device.stop(), 0);
}

const HOST_FRAMES =
  "With --frames host every page leads to the host frame that QEMU's page map has";

// Without CAP_SYS_ADMIN the kernel shows no frames to compare with: registered so that the run names what it did not test.
if (isLong && !seesFrames) Deno.test({ name: HOST_FRAMES, ignore: true, fn() {} });
else if (isLong) await labTests(() => prepareLab("x86_64"), { [HOST_FRAMES]: compareFrames });
