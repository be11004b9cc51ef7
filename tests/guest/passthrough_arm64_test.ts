/**
 * What `passthrough_test.ts` does on x86-64, on arm64: the host's IOMMU is an SMMUv3, and the endpoints' own tables have its
 * format. In the long mode (`VIOMMU_TEST=full`) only.
 */
import { assertEquals } from "@std/assert";
import type { Answer } from "../device/vfio/recorded_calls.ts";
import { isLong } from "../long_mode.ts";
import { edu, GROUPS, prepareL1, runInL1 } from "./l1_machine.ts";
import { type Lab, labTests } from "./lab/mod.ts";
import { temporaryFolder } from "./temporary_folder.ts";

/** The record of a kernel's answers on x86-64. */
const RECORD = new URL("../device/vfio/recorded_answers.json", import.meta.url);

const PROGRAMS = {
  kernel: "the kernel translates a device's DMA, and answers calls as on x86-64",
  vfio_cases: "device/vfio does with the kernel what it does with that of its tests",
  serving: "serve attaches devices to what the guest says, in the order that it says it",
};

/** The answers that are others than on x86-64: interrupts are written elsewhere, and no structure describes this IOMMU. */
const OTHERS: readonly Answer[] = [
  { step: "HARDWARE_INFO", call: "HARDWARE_INFO", errno: "OK", out: { type: "0x0" } },
  { step: "MAP_FILE in the window of message interrupts", call: "MAP_FILE", errno: "OK" },
  { step: "MAP_FILE into the window of message interrupts", call: "MAP_FILE", errno: "EEXIST" },
  {
    step: "IOVA_RANGES with a device",
    call: "IOVA_RANGES",
    errno: "OK",
    out: {
      count: "0x2",
      alignment: "0x1000",
      range0: "0x0-0x7ffffff",
      range1: "0x8100000-0xffffffffffff",
    },
  },
  { step: "ATTACH with a mapping in the window", call: "ATTACH", errno: "OK" },
];

async function passThrough(lab: Lab, context: Deno.TestContext): Promise<void> {
  await using folder = await temporaryFolder();
  const told = await runInL1(lab, folder.path, {
    arch: "aarch64",
    programs: PROGRAMS,
    bundles: { viommu: new URL("../../main.ts", import.meta.url) },
    devices: [...edu("addr=4"), ...GROUPS.aarch64],
  }, context);
  const record: readonly Answer[] = JSON.parse(await Deno.readTextFile(RECORD));
  const expected = record.map((each) => OTHERS.find(({ step }) => step === each.step) ?? each);
  assertEquals(told.get("answers"), expected);
}

if (isLong) {
  await labTests(() => prepareL1("aarch64"), {
    "A device of an arm64 L1 does its DMA behind our IOMMU": passThrough,
  });
}
