/**
 * A Linux guest boots, maps and unmaps while the process that serves its IOMMU is killed at random moments. Each page is
 * compared with the guest's page map, no call of the guest fails, and its kernel has nothing to complain of.
 *
 * `VIOMMU_TEST=full` goes through it several times.
 */
import { assert, assertEquals } from "@std/assert";
import { delay } from "@std/async";
import { isLong } from "../long_mode.ts";
import { type Lab, labTests, prepareLab } from "./lab/mod.ts";
import { mapAndCompare, VTD_SECOND_STAGE } from "./mapping_comparison.ts";
import { bootPlain, EDU_ENDPOINT } from "./plain_machine.ts";
import { Random, seed } from "./random.ts";
import type { ServedDevice } from "./served_device.ts";
import { temporaryFolder } from "./temporary_folder.ts";

/** Times that everything is mapped, compared and unmapped. */
const ROUNDS = isLong ? 12 : 1;
/** Milliseconds that a process serves at least, and some more: processes that die at once would be given up. */
const [LEAST, MORE] = [1200, 1500];

/** Kills the process that serves again and again until told to stop; how often. */
async function killAgainAndAgain(
  device: ServedDevice,
  random: Random,
  isOver: () => boolean,
): Promise<number> {
  let kills = 0;
  let last = 0;
  while (!isOver()) {
    const { process } = await device.state();
    assert(process !== undefined);
    await delay(process.pid === last ? 10 : LEAST + random.below(MORE));
    if (process.pid === last || isOver()) continue;
    last = process.pid;
    Deno.kill(process.pid, "SIGKILL");
    kills++;
  }
  return kills;
}

async function survive(lab: Lab): Promise<void> {
  await using folder = await temporaryFolder();
  await using plain = await bootPlain(lab, folder.path, ["--supervise"]);
  const { guest, device } = plain;
  await guest.run("dmesg -c > /dev/null");
  const random = new Random(seed());
  let isOver = false;
  const killing = killAgainAndAgain(device, new Random(seed() + 1), () => isOver);
  try {
    for (let round = 0; round < ROUNDS; round++) {
      await mapAndCompare(guest, device, EDU_ENDPOINT, VTD_SECOND_STAGE, random);
      await guest.closeVfio();
    }
  } finally {
    isOver = true;
  }
  const kills = await killing;
  assert(kills >= ROUNDS, `${kills} processes were killed`);
  const { process } = await device.stateWhere(
    "all deaths known",
    (state) => state.process?.deaths === kills,
  );
  const { medianMilliseconds, longestMilliseconds } = process!.pauses;
  console.log(
    `${kills} kills, pauses of ${medianMilliseconds} ms (longest ${longestMilliseconds})`,
  );
  const warnings = (await guest.run("dmesg -r")).filter((line) => /^<[0-4]>/.test(line));
  assertEquals(warnings, []);
  await guest.powerOff();
  assertEquals(await device.stop(), 0);
}

await labTests(() => prepareLab("x86_64"), {
  "A Linux guest goes on when the process that serves its IOMMU is killed again and again": survive,
});
