/**
 * An arm64 guest finds the device through its device tree; what it maps is what endpoints reach through SMMUv3
 * tables, and the doorbell of its interrupts is device memory there.
 *
 * Stage-2 tables are tested in the long mode (`VIOMMU_TEST=full`) only.
 */
import { assert, assertEquals } from "@std/assert";
import { isLong } from "../long_mode.ts";
import { arm64Device, arm64Machine, PORT_SLOT } from "./arm64_machine.ts";
import { EDU_SLOT, Guest, type Lab, labTests, prepareLab } from "./lab/mod.ts";
import {
  domainOf,
  type FormatHabits,
  mapAndCompare,
  SMMU_FIRST_STAGE,
  SMMU_SECOND_STAGE,
} from "./mapping_comparison.ts";
import { Random, seed } from "./random.ts";
import type { ServedDevice } from "./served_device.ts";
import { temporaryFolder } from "./temporary_folder.ts";

/** Where the interrupt controller of the machine takes messages (its GITS_TRANSLATER page). */
const DOORBELL = 0x0809_0000;

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

async function driveGuest(lab: Lab, format: string, habits: FormatHabits): Promise<void> {
  await using folder = await temporaryFolder();
  await using device = await arm64Device(folder.path, format);
  const machine = await arm64Machine(lab, device, folder.path);
  await using guest = await Guest.boot(lab.qemu, machine);
  assertEquals(await guest.run("uname -m"), ["aarch64"]);
  const { domains } = await device.state();
  assert(domains.every(({ tables }) => tables.every((table) => table.format === format)));
  await assertDoorbell(device);
  await mapAndCompare(guest, device, EDU_SLOT * 8, habits, new Random(seed()));
  await guest.closeVfio();
  await guest.powerOff();
  assertEquals(await device.stop(), 0);
}

function firstStage(lab: Lab): Promise<void> {
  return driveGuest(lab, "smmuv3-s1", SMMU_FIRST_STAGE);
}

function secondStage(lab: Lab): Promise<void> {
  return driveGuest(lab, "smmuv3-s2", SMMU_SECOND_STAGE);
}

await labTests(() => prepareLab("aarch64"), {
  "An arm64 guest is translated through SMMUv3 tables, its doorbell as device memory": firstStage,
  ...(isLong ? { "An arm64 guest is translated through SMMUv3 stage-2 tables": secondStage } : {}),
});
