/**
 * An arm64 guest's disk, done by qemu-storage-daemon behind a relay, with SMMUv3 tables. In the long mode
 * (`VIOMMU_TEST=full`) only; what is special about the machine is in `endpoint_arm64_test.ts`.
 */
import { assertEquals } from "@std/assert";
import { isLong } from "../long_mode.ts";
import { arm64Machine } from "./arm64_machine.ts";
import { type BackEnds, findBackEnds, Guest, type Lab, labTests, prepareLab } from "./lab/mod.ts";
import { checkConfined, checkDisk } from "./relay_checks.ts";
import { deviceOf, DISK, places, relayOption, startBackEnd } from "./relay_machine.ts";
import { ServedDevice } from "./served_device.ts";
import { temporaryFolder } from "./temporary_folder.ts";

async function driveDisk(lab: Lab, backEnds: BackEnds): Promise<void> {
  await using folder = await temporaryFolder();
  const { disk } = places(folder.path);
  await Deno.writeFile(disk, new Uint8Array(0));
  await Deno.truncate(disk, DISK);
  await using process = await startBackEnd(backEnds, "blk", folder.path);
  await using device = await ServedDevice.start(folder.path, [
    ...["--input-range", "0x40000000-0x5fffffff", "--msi-region", "0x8090000-0x8090fff"],
    ...["--endpoint", "0-0xffff,format=smmuv3-s1"],
    ...relayOption("blk", folder.path),
  ]);
  const machine = await arm64Machine(lab, device, folder.path);
  await lab.writeInitramfs(`${folder.path}/initramfs.gz`, { "virtio_blk": "" });
  const devices = ["-M", "iommu=smmuv3", ...deviceOf("blk", folder.path)];
  await using guest = await Guest.boot(lab.qemu, [...machine, ...devices]);
  assertEquals(await guest.run("uname -m"), ["aarch64"]);
  await checkDisk(guest, disk);
  await checkConfined("blk", process.pid);
  assertEquals((await device.state()).faults, { reported: 0, dropped: 0 });
  await guest.powerOff();
  assertEquals(await device.stop(), 0);
}

if (isLong) {
  await labTests(
    async () => ({ lab: await prepareLab("aarch64"), backEnds: await findBackEnds() }),
    {
      "An arm64 guest's disk is done by a storage daemon that has none of its memory": (
        { lab, backEnds },
      ) => driveDisk(lab, backEnds),
    },
  );
}
