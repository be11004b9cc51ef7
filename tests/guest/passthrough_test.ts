/** What needs a real `/dev/iommu` and a device behind a real IOMMU, in an L1 guest that has both. */
import { assertEquals } from "@std/assert";
import type { Answer } from "../device/vfio/recorded_calls.ts";
import { type Lab, labTests } from "./lab/mod.ts";
import { edu, prepareL1, runInL1 } from "./l1_machine.ts";
import { PLAIN } from "./lab/cpio.ts";
import { qemuEntries } from "./lab/host_program.ts";
import { run } from "./lab/process.ts";
import { isLong } from "../long_mode.ts";
import { seed } from "./random.ts";
import { temporaryFolder } from "./temporary_folder.ts";

/** Devices that are alone in their IOMMU groups of L1, and two that share one, behind a bridge to PCI. */
const DEVICES = [
  ...[4, 6, 7, 8, 9, 10, 11, 12, 13].flatMap((slot) => edu(`addr=0x${slot.toString(16)}`)),
  ...["-device", "pcie-pci-bridge,id=bridge,addr=5"],
  ...edu("bus=bridge,addr=1"),
  ...edu("bus=bridge,addr=2"),
];

/** The programs, and what each proves. `VIOMMU_L1=NAME` runs one alone. */
const PROGRAMS: Readonly<Record<string, string>> = {
  kernel: "the kernel translates a device's DMA, and answers calls as it is recorded",
  vfio_cases: "device/vfio does with the kernel what it does with that of its tests",
  serving: "serve attaches devices to what the guest says, in the order that it says it",
  vmm: "QEMU passes a device through, and serve attaches it beneath",
  histories: "the engine fills a page table of ours and the kernel's alike, whatever is mapped",
};

/** The record of a real kernel's answers. `VIOMMU_RECORD=1` writes it anew, as for another kernel. */
const RECORD = new URL("../device/vfio/recorded_answers.json", import.meta.url);

/** A text as the content of a file. */
function text(content: string): Uint8Array {
  return new TextEncoder().encode(content);
}

/** The programs that are asked for. */
function chosenPrograms(): Readonly<Record<string, string>> {
  const name = Deno.env.get("VIOMMU_L1") ?? "";
  return name === "" ? PROGRAMS : { [name]: PROGRAMS[name] };
}

async function passThrough(lab: Lab, context: Deno.TestContext): Promise<void> {
  await using folder = await temporaryFolder();
  const options = {
    programs: chosenPrograms(),
    bundles: { viommu: new URL("../../main.ts", import.meta.url) },
    devices: DEVICES,
    memory: 1280,
    files: [
      ...await qemuEntries(lab.qemu),
      { path: "programs/qemu.json", mode: PLAIN, content: text(JSON.stringify(lab.qemu)) },
    ],
    variables: { VIOMMU_SEED: `${seed()}`, steps: isLong ? "200" : "10" },
  };
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

await labTests(prepareL1, {
  "A device of L1 does its DMA behind our IOMMU": passThrough,
});
