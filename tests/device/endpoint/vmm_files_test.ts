/** Files of a passed-through device in the VMM's process. */
import { assertEquals, assertMatch } from "@std/assert";
import { type HostFiles, takeVmmFiles } from "../../../device/endpoint/mod.ts";
import { descriptorsClosed, PeerProcess } from "../../../device/host/mod.ts";
import { withFolder } from "../command/test_folder.ts";
import { until } from "../../until.ts";
import { descriptorCount } from "../host/host_state.ts";
import { FileHolder } from "./file_holder.ts";

const IOMMU = "dev/iommu";
const [VFIO0, VFIO3] = ["dev/vfio/devices/vfio0", "dev/vfio/devices/vfio3"];

/** What is taken from a process with such files open: names of the two, nothing, or the line that says why not. */
async function taken(
  names: readonly string[],
  wanted?: string,
): Promise<readonly string[] | string | undefined> {
  let result: readonly string[] | string | undefined;
  await withFolder(async (folder) => {
    // Where vfio3 is, for a sysfs that is looked at.
    await Deno.mkdir(`${folder}/sys/class/vfio-dev`, { recursive: true });
    await Deno.symlink(
      "../../devices/pci0000:00/0000:00:04.0/vfio-dev/vfio3",
      `${folder}/sys/class/vfio-dev/vfio3`,
    );
    await using holder = await FileHolder.start(folder, names);
    const files = takeVmmFiles(holder.process, wanted, `${folder}/sys`);
    if (files === undefined || typeof files === "string") {
      result = files?.replaceAll(String(holder.process.pid), "PID");
      return;
    }
    result = await namesOf(files, folder);
    files.iommufd.close();
    files.device.close();
  });
  return result;
}

async function namesOf({ iommufd, device }: HostFiles, folder: string): Promise<readonly string[]> {
  const names = [iommufd, device].map(({ number }) => Deno.readLink(`/proc/self/fd/${number}`));
  return (await Promise.all(names)).map((name) => name.slice(folder.length + 1));
}

Deno.test("the only device of a VMM is taken, with its /dev/iommu", async () => {
  const before = descriptorCount();
  assertEquals(await taken(["other", VFIO0, IOMMU]), [IOMMU, VFIO0]);
  await descriptorsClosed();
  await until(() => descriptorCount() === before, "everything is closed");
});

Deno.test("of several devices the one is taken that is named, by its VFIO name or its PCI address", async () => {
  const all = [IOMMU, VFIO0, VFIO3];
  assertEquals(await taken(all, "vfio0"), [IOMMU, VFIO0]);
  assertEquals(await taken(all, "vfio3"), [IOMMU, VFIO3]);
  assertEquals(await taken(all, "0000:00:04.0"), [IOMMU, VFIO3]);
  assertEquals(
    await taken(all),
    "Process PID has several devices open, vfio0, vfio3: say which one is the endpoint (device=)",
  );
});

Deno.test("a VMM that has yet to open the device is waited for", async () => {
  for (
    const [names, wanted] of [
      [["other"], undefined],
      [[IOMMU], undefined],
      [[VFIO0], undefined],
      [[IOMMU, VFIO0], "vfio1"],
      [[IOMMU, VFIO0], "0000:00:04.0"],
    ] as const
  ) assertEquals(await taken(names, wanted), undefined, names.join(" "));
});

Deno.test("a VMM with two openings of /dev/iommu is refused: which one has the device cannot be told", async () => {
  const before = descriptorCount();
  const line = await taken([IOMMU, VFIO0, IOMMU]);
  assertEquals(
    line,
    "Process PID has /dev/iommu open several times, as descriptors 20, 22: " +
      "pass the open files instead (fd=, iommufd=)",
  );
  await descriptorsClosed();
  await until(() => descriptorCount() === before, "everything is closed");
});

Deno.test("a VMM that has ended is said to have ended", async () => {
  const child = new Deno.Command("true").spawn();
  const process = PeerProcess.ofProcess(child.pid)!;
  await child.status;
  assertMatch(
    String(takeVmmFiles(process, undefined)),
    /^Cannot look for open files of process \d+: it has ended$/,
  );
  process.close();
});
