/**
 * Runs in L1: `device/vfio` over the real kernel, its devices' DMA as the judge.
 *
 * @module
 */
import { KERNEL_CASES } from "../../device/vfio/kernel_cases.ts";
import { check } from "./checks.ts";
import { kernelWorld } from "./kernel_world.ts";
import { bindToVfio, GROUPED, SINGLE } from "./vfio.ts";

const alone = kernelWorld([await bindToVfio(SINGLE)], [1]);
const siblings = kernelWorld(await Promise.all(GROUPED.map(bindToVfio)), [2, 2]);

for (const { name, needsGroup = false, run } of KERNEL_CASES) {
  await check(name, () => run(needsGroup ? siblings : alone));
}
