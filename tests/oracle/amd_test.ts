/**
 * QEMU's AMD IOMMU translates DMA through tables of ours, and faults, as our walker says.
 */
import { labTests, type Qemu } from "../guest/lab/mod.ts";
import { amdBoard } from "./amd_judge.ts";
import { examine, variants } from "./examination.ts";
import { prepareJudge } from "./judge.ts";

/** `levels` is the Mode of the device table entry. */
function agreeOn(levels: number): (qemu: Qemu) => Promise<void> {
  return (qemu) =>
    examine(qemu, {
      board: amdBoard(),
      format: "amdv1",
      table: { levels },
      // QEMU lets everything pass where the entry has Mode 0, whatever its IR and IW say (§2.2.2.1).
      stranger: false,
    });
}

await labTests(
  () => prepareJudge("x86_64"),
  variants(
    { "AMD v1, 4 levels: QEMU and our walker agree on every access": agreeOn(4) },
    {
      "AMD v1, 3 levels: QEMU and our walker agree on every access": agreeOn(3),
      "AMD v1, 5 levels: QEMU and our walker agree on every access": agreeOn(5),
    },
  ),
);
