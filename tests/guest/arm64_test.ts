/**
 * An arm64 guest finds the device through its device tree; what it maps is what endpoints reach through SMMUv3
 * tables, and the doorbell of its interrupts is device memory there.
 */
import { assert, assertEquals } from "@std/assert";
import {
  EDU_SLOT,
  Guest,
  type Lab,
  labTests,
  LineProcess,
  machineArguments,
  type MachineOptions,
  prepareLab,
} from "./lab/mod.ts";
import { domainOf, mapAndCompare, SMMU_FIRST_STAGE } from "./mapping_comparison.ts";
import { Random, seed } from "./random.ts";
import { deviceArguments, ServedDevice, viommu } from "./served_device.ts";
import { temporaryFolder } from "./temporary_folder.ts";

/** Milliseconds for QEMU to write a device tree. */
const DUMP_LIMIT = 60_000;

/** The slot of a root port: its driver, which is built into the kernel, asks for an interrupt by message. */
const PORT_SLOT = 5;

/** Where the interrupt controller of the machine takes messages (its GITS_TRANSLATER page). */
const DOORBELL = 0x0809_0000;

/** Has QEMU write the machine's device tree, and puts the IOMMU into it. */
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

/** The doorbell is mapped for the root port, writable, and device memory in the tables. */
async function assertDoorbell(device: ServedDevice): Promise<void> {
  const port = PORT_SLOT * 8;
  const domain = domainOf(await device.state(), port);
  const mappings = await device.mappings(domain.id);
  const doorbell = mappings.find(({ phys }) => Number(phys) === DOORBELL);
  assert(doorbell !== undefined, `the doorbell is mapped: ${JSON.stringify(mappings)}`);
  assertEquals(doorbell.flags, "wm", "as Linux asks for it: to be written, device memory");
  const answer = await device.translate(port, Number(doorbell.iova) + 0x40, "w");
  assert(answer.fault === undefined, JSON.stringify(answer));
  assertEquals([Number(answer.phys), answer.memory], [DOORBELL + 0x40, "device"]);
}

async function driveGuest(lab: Lab): Promise<void> {
  await using folder = await temporaryFolder();
  const initramfs = `${folder.path}/initramfs.gz`;
  await lab.writeInitramfs(initramfs);
  await using device = await ServedDevice.start(folder.path, [
    "--endpoint",
    "0-0xffff,format=smmuv3-s1",
    "--msi-region",
    "none",
  ]);
  const bare: MachineOptions = { kernel: lab.kernel, initramfs, devices: [] };
  const tree = await patchedTree(lab, bare, folder.path);
  const port = `pcie-root-port,id=root_port,addr=${PORT_SLOT}`;
  const devices = ["-device", `edu,addr=${EDU_SLOT}`, "-device", port, "-dtb", tree];
  await using guest = await Guest.boot(
    lab.qemu,
    machineArguments("aarch64", { ...bare, devices: [...deviceArguments(device), ...devices] }),
  );
  assertEquals(await guest.run("uname -m"), ["aarch64"]);
  const { domains } = await device.state();
  assert(domains.every(({ tables }) => tables.every(({ format }) => format === "smmuv3-s1")));
  await assertDoorbell(device);
  await mapAndCompare(guest, device, EDU_SLOT * 8, SMMU_FIRST_STAGE, new Random(seed()));
  await guest.closeVfio();
  await guest.powerOff();
  assertEquals(await device.stop(), 0);
}

await labTests(() => prepareLab("aarch64"), {
  "An arm64 guest is translated through SMMUv3 tables, its doorbell as device memory": driveGuest,
});
