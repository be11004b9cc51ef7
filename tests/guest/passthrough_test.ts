/** What needs a real `/dev/iommu` and a device behind a real IOMMU, in an L1 guest that has both. */
import { assertEquals } from "@std/assert";
import type { Answer } from "../device/vfio/recorded_calls.ts";
import { type Lab, labTests } from "./lab/mod.ts";
import { edu, GROUPS, type L1Options, prepareL1, runInL1 } from "./l1_machine.ts";
import { PLAIN } from "./lab/cpio.ts";
import { qemuEntries } from "./lab/host_program.ts";
import { run } from "./lab/process.ts";
import { isLong } from "../long_mode.ts";
import { seed } from "./random.ts";
import { temporaryFolder } from "./temporary_folder.ts";

/** Devices that are alone in their IOMMU groups of L1, and two that share one, behind a bridge to PCI. */
const DEVICES = [
  ...[4, 6, 7, 8, 9, 10, 11, 12, 13].flatMap((slot) => edu(`addr=0x${slot.toString(16)}`)),
  ...GROUPS.x86_64,
];

/** The programs, and what each proves. `VIOMMU_L1=NAME` runs one alone. */
const PROGRAMS = {
  kernel: "the kernel translates a device's DMA, and answers calls as it is recorded",
  vfio_cases: "device/vfio does with the kernel what it does with that of its tests",
  serving: "serve attaches devices to what the guest says, in the order that it says it",
  vmm: "QEMU passes a device through, and serve attaches it beneath",
  histories: "the engine fills a page table of ours and the kernel's alike, whatever is mapped",
};

/** Those that only the long mode runs, if none is named. */
const LONG: readonly string[] = ["kernel", "vfio_cases", "histories"];

/** The record of a real kernel's answers. `VIOMMU_RECORD=1` writes it anew, as for another kernel. */
const RECORD = new URL("../device/vfio/recorded_answers.json", import.meta.url);

/** A text as the content of a file. */
function text(content: string): Uint8Array {
  return new TextEncoder().encode(content);
}

/** The programs that are asked for. */
function chosenPrograms(): L1Options["programs"] {
  const chosen = Deno.env.get("VIOMMU_L1") ?? "";
  const isWanted = (name: string) =>
    chosen === "" ? isLong || !LONG.includes(name) : name === chosen;
  return Object.fromEntries(Object.entries(PROGRAMS).filter(([name]) => isWanted(name)));
}

/** What all runs have in common. */
async function machineOf(lab: Lab, programs: L1Options["programs"]): Promise<L1Options> {
  return {
    programs,
    bundles: { viommu: new URL("../../main.ts", import.meta.url) },
    devices: DEVICES,
    memory: 1280,
    files: [
      ...await qemuEntries(lab.qemu),
      { path: "programs/qemu.json", mode: PLAIN, content: text(JSON.stringify(lab.qemu)) },
    ],
    variables: { VIOMMU_SEED: `${seed()}`, steps: isLong ? "200" : "10" },
  };
}

async function passThrough(lab: Lab, context: Deno.TestContext): Promise<void> {
  await using folder = await temporaryFolder();
  const options = await machineOf(lab, chosenPrograms());
  const told = await runInL1(lab, folder.path, options, context);
  const answers = told.get("answers") as readonly Answer[] | undefined;
  if (answers === undefined) return;
  if (Deno.env.get("VIOMMU_RECORD") === "1") {
    const lines = answers.map((each) => `  ${JSON.stringify(each)}`);
    await Deno.writeTextFile(RECORD, `[\n${lines.join(",\n")}\n]\n`);
    await run([Deno.execPath(), "fmt", "--quiet", RECORD.pathname]);
  }
  assertEquals(answers, JSON.parse(await Deno.readTextFile(RECORD)));
}

/**
 * The kernel uses first-stage tables, in scalable mode. There QEMU does not translate for devices behind a bridge to PCI, so
 * this is about a device that is alone in its group.
 */
async function passThroughFirstStage(lab: Lab, context: Deno.TestContext): Promise<void> {
  await using folder = await temporaryFolder();
  const { vmm } = PROGRAMS;
  const options = await machineOf(lab, { vmm });
  const iommu = ",scalable-mode=on,fsts=on";
  await runInL1(lab, folder.path, { ...options, iommu }, context);
}

await labTests(() => prepareL1(), {
  "A device of L1 does its DMA behind our IOMMU": passThrough,
  ...(isLong
    ? { "It does so where the host's IOMMU walks first-stage tables": passThroughFirstStage }
    : {}),
});
