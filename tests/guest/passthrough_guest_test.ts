/**
 * A whole Linux guest in an L1 guest: its own drivers map memory through our device, and the kernel of L1 has the IOMMU
 * translate as `serve` says. In the long mode (`VIOMMU_TEST=full`) only: an emulated processor emulates the guest's, which takes
 * some six minutes of a processor.
 */
import { isLong } from "../long_mode.ts";
import { type ArchiveEntry, PLAIN } from "./lab/cpio.ts";
import { fileEntry, qemuEntries } from "./lab/host_program.ts";
import { type Lab, labTests } from "./lab/mod.ts";
import { edu, prepareL1, runInL1 } from "./l1_machine.ts";
import { viommu } from "./served_device.ts";
import { temporaryFolder } from "./temporary_folder.ts";
import { addProgram } from "./translated_machine.ts";

const PROGRAMS = {
  linux_guest: "a Linux guest of QEMU says by its own drivers what a device of the host reaches",
};

/** Milliseconds for a check. The boot takes some five minutes of one processor, which it may have to share. */
const STEP_LIMIT = 1_500_000;

/** What a JSON file of L1 holds. */
function json(path: string, value: unknown): ArchiveEntry {
  return { path, mode: PLAIN, content: new TextEncoder().encode(JSON.stringify(value)) };
}

/** The files of the guest. */
async function guestEntries(lab: Lab, folder: string): Promise<readonly ArchiveEntry[]> {
  const initramfs = `${folder}/guest`;
  const table = `${folder}/viot.aml`;
  await lab.writeInitramfs(initramfs);
  await addProgram(initramfs, "vfio_edu");
  await viommu("viot", "--iommu", "00:02.0", "-o", table);
  return [
    json("guest/kernel.json", { ...lab.kernel, image: "/guest/kernel" }),
    await fileEntry(lab.kernel.image, "/guest/kernel"),
    await fileEntry(initramfs, "/guest/initramfs"),
    await fileEntry(table, "/guest/viot.aml"),
  ];
}

async function bootInL1(lab: Lab, context: Deno.TestContext): Promise<void> {
  await using folder = await temporaryFolder();
  await runInL1(lab, folder.path, {
    programs: PROGRAMS,
    bundles: { viommu: new URL("../../main.ts", import.meta.url) },
    devices: edu("addr=4"),
    memory: 1536,
    files: [
      ...await qemuEntries(lab.qemu),
      json("programs/qemu.json", lab.qemu),
      ...await guestEntries(lab, folder.path),
    ],
    stepLimit: STEP_LIMIT,
  }, context);
}

if (isLong) {
  await labTests(() => prepareL1(), {
    "A Linux guest in L1 has a device of the host behind our IOMMU": bootInL1,
  });
}
