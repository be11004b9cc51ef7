/**
 * Boots the same guest with each ring layout that it can be offered, to test our rings with the guest's driver.
 *
 * In the long mode (`VIOMMU_TEST=full`) only: the other guest tests use the packed ring.
 */
import { assertEquals } from "@std/assert";
import { isLong } from "../long_mode.ts";
import { arm64Device, arm64Machine } from "./arm64_machine.ts";
import { EDU_SLOT, Guest, type Lab, labTests, machineArguments, prepareLab } from "./lab/mod.ts";
import { assertLayout, LAYOUTS, mapThroughRing } from "./ring_layouts.ts";
import { attachArguments, ServedDevice } from "./served_device.ts";
import { temporaryFolder } from "./temporary_folder.ts";

async function mapOnX86(lab: Lab, rings: string): Promise<void> {
  await using folder = await temporaryFolder();
  const initramfs = `${folder.path}/initramfs.gz`;
  await lab.writeInitramfs(initramfs);
  await using device = await ServedDevice.start(folder.path, ["--rings", rings]);
  const attach = await attachArguments(device, folder.path);
  const devices = [...attach, "-device", `edu,addr=${EDU_SLOT}`];
  const machine = machineArguments("x86_64", { kernel: lab.kernel, initramfs, devices });
  await mapAndEnd(lab, device, machine, rings);
}

async function mapOnArm64(lab: Lab, rings: string): Promise<void> {
  await using folder = await temporaryFolder();
  await using device = await arm64Device(folder.path, "smmuv3-s1", ["--rings", rings]);
  const machine = await arm64Machine(lab, device, folder.path);
  await mapAndEnd(lab, device, machine, rings);
}

/** Boots a machine, uses the ring in the guest, and ends both. */
async function mapAndEnd(
  lab: Lab,
  device: ServedDevice,
  machine: readonly string[],
  rings: string,
): Promise<void> {
  await using guest = await Guest.boot(lab.qemu, machine);
  await assertLayout(guest, rings);
  await mapThroughRing(guest, device);
  await guest.powerOff();
  assertEquals(await device.stop(), 0);
}

/** One test for each layout. */
function layoutTests(
  guest: string,
  test: (lab: Lab, rings: string) => Promise<void>,
): Record<string, (lab: Lab) => Promise<void>> {
  return Object.fromEntries(
    Object.entries(LAYOUTS).map(([name, rings]) => [
      `${guest} maps through ${name}`,
      (lab: Lab) => test(lab, rings),
    ]),
  );
}

if (isLong) {
  await labTests(() => prepareLab("x86_64"), layoutTests("A guest", mapOnX86));
  await labTests(() => prepareLab("aarch64"), layoutTests("An arm64 guest", mapOnArm64));
}
