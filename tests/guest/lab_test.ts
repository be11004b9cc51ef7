/**
 * Tests the lab itself with a guest behind QEMU's own virtio-iommu.
 *
 * Nothing of the product takes part, so a failure here is a failure of the lab. In the long mode (`VIOMMU_TEST=full`) only.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { isLong } from "../long_mode.ts";
import { EDU_SLOT, Guest, type Lab, labTests, machineArguments, prepareLab } from "./lab/mod.ts";
import { temporaryFolder } from "./temporary_folder.ts";

const PAGE = 4096;

async function driveGuest(lab: Lab): Promise<void> {
  await using folder = await temporaryFolder();
  const initramfs = `${folder.path}/initramfs.gz`;
  await lab.writeInitramfs(initramfs);
  const devices = ["-device", "virtio-iommu-pci,addr=2", "-device", `edu,addr=${EDU_SLOT}`];
  await using guest = await Guest.boot(
    lab.qemu,
    machineArguments("x86_64", { kernel: lab.kernel, initramfs, devices }),
  );
  assertEquals(await guest.run("uname -r"), [lab.kernel.release]);
  await assertRejects(() => guest.run("exit 3"), Error, "ended with status 3");

  await guest.run("echo 2 > /proc/sys/vm/nr_hugepages");
  const ranges = await guest.openVfio(`0000:00:0${EDU_SLOT}.0`);
  assert(ranges.length > 0 && ranges.every(({ first, last }) => first < last));

  const scattered = await guest.map(0x100_0000, 16 * PAGE, "rw", "scattered");
  assertEquals(scattered.reduce((sum, { pages }) => sum + pages, 0), 16);
  assert(scattered.every(({ phys }) => phys > 0 && phys < 512 * 2 ** 20 && phys % PAGE === 0));
  assertEquals(scattered[0].iova, 0x100_0000);

  const one = await guest.map(0x200_0000, 3 * PAGE, "r", "one");
  assertEquals(one.map(({ phys }) => phys), Array(3).fill(one[0].phys));

  const huge = await guest.map(0x400_0000, 2 << 20, "w", "huge");
  assertEquals(huge.map(({ pages }) => pages), [512]);
  assertEquals(huge[0].phys % (2 << 20), 0);

  await assertRejects(() => guest.map(0x100_0000, PAGE, "rw", "scattered"), Error, "exists");
  assertEquals(await guest.unmap(0x100_0000, 16 * PAGE), 16 * PAGE);
  const cost = await guest.bench(0x800_0000, PAGE, 100);
  assert(cost.map > 0 && cost.unmap > 0);
  await guest.powerOff();
}

if (isLong) {
  await labTests(() => prepareLab("x86_64"), {
    "The lab's guest maps, unmaps and ends as it is told": driveGuest,
  });
}
