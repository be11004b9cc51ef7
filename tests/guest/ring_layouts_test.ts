/**
 * The same guest with each ring layout that QEMU can negotiate: its own driver is the judge of our rings.
 *
 * All layouts in the long mode (`VIOMMU_TEST=full`), the packed ring otherwise.
 */
import { assertEquals } from "@std/assert";
import { EDU_SLOT, Guest, type Lab, labTests, machineArguments, prepareLab } from "./lab/mod.ts";
import { attachArguments, ServedDevice } from "./served_device.ts";
import { temporaryFolder } from "./temporary_folder.ts";

const PAGE = 4096;
/** Options of QEMU's device, by what they make of the rings. */
const LAYOUTS: Readonly<Record<string, string>> = {
  "packed rings": "packed=on",
  "split rings without event index": "event_idx=off",
  "split rings without indirect tables": "indirect_desc=off",
  "split rings used in order": "in_order=on",
  "packed rings used in order": "packed=on,in_order=on",
  "packed rings without event index": "packed=on,event_idx=off",
  "packed rings without indirect tables": "packed=on,indirect_desc=off",
};

/** Maps and unmaps pages through a ring of one layout, more often than the ring has entries. */
async function mapThrough(lab: Lab, options: string): Promise<void> {
  await using folder = await temporaryFolder();
  const initramfs = `${folder.path}/initramfs.gz`;
  await lab.writeInitramfs(initramfs);
  await using device = await ServedDevice.start(folder.path);
  const attach = (await attachArguments(device, folder.path)).map((argument) =>
    argument.startsWith("vhost-user-test-device-pci") ? `${argument},${options}` : argument
  );
  const machine = machineArguments("x86_64", {
    kernel: lab.kernel,
    initramfs,
    devices: [...attach, "-device", `edu,addr=${EDU_SLOT}`],
  });
  await using guest = await Guest.boot(lab.qemu, machine);
  await guest.openVfio(`0000:00:0${EDU_SLOT}.0`);
  await guest.bench(0x1000_0000, PAGE, 400);
  for (const run of await guest.map(0x100_0000, 64 * PAGE, "rw", "scattered")) {
    for (let page = 0; page < run.pages; page++) {
      const answer = await device.translate(EDU_SLOT * 8, run.iova + page * PAGE, "w");
      assertEquals(Number(answer.fault === undefined && answer.phys), run.phys + page * PAGE);
    }
  }
  assertEquals(await guest.unmap(0x100_0000, 64 * PAGE), 64 * PAGE);
  const { requests } = await device.state();
  assertEquals(
    Object.values(requests).flatMap((statuses) => Object.keys(statuses)).filter((s) => s !== "OK"),
    [],
  );
  await guest.powerOff();
  assertEquals(await device.stop(), 0);
}

const full = Deno.env.get("VIOMMU_TEST") === "full";

await labTests(
  () => prepareLab("x86_64"),
  Object.fromEntries(
    Object.entries(LAYOUTS).slice(0, full ? undefined : 1).map(([name, options]) => [
      `A guest maps through ${name}`,
      (lab: Lab) => mapThrough(lab, options),
    ]),
  ),
);
