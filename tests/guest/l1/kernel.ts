/**
 * Runs in L1: the kernel's own `iommufd` translates the DMA of a device, and answers calls. Nothing of the product takes part.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { createMemoryFile } from "../../../device/host/mod.ts";
import { recordAnswers, type RecordedKernel } from "../../device/vfio/recorded_calls.ts";
import { check, tell } from "./checks.ts";
import { eduOf } from "./edu.ts";
import { closeFile, ioctl, openDevice, withUser } from "./libc.ts";
import { PAGE, readArrives, type Scratch, TestMemory, writeArrives } from "./memory.ts";
import { bindToVfio, GROUPED, HostDevice, HostIommufd, SINGLE } from "./vfio.ts";

/** Any user but root. */
const USER = 1000;

/** A device alone in its IOMMU group, and two that share one. */
const paths: string[] = [];
for (const address of [SINGLE, ...GROUPED]) {
  paths.push(await bindToVfio(address));
}

const kernel: RecordedKernel = {
  ioctl,
  openIommufd: () => openDevice("/dev/iommu"),
  openDevice: (index) => openDevice(paths[index]),
  memoryFile: (bytes) => createMemoryFile("recording", bytes).take(),
  close: closeFile,
  asUser: (bytes, calls) => withUser(USER, bytes, calls),
};

await check("The kernel answers all calls", () => tell("answers", recordAnswers(kernel)));

const memory = new TestMemory(8);
const iommufd = new HostIommufd();
const device = new HostDevice(paths[0]);
device.bind(iommufd);
const edu = eduOf(device);
const ioas = iommufd.allocate();
const scratch: Scratch = { memory, page: 0, iova: 0x10_0000n };

await check("A device that is attached reaches what is mapped", async () => {
  assertEquals(device.attach(ioas), 0);
  assertEquals(iommufd.map(ioas, scratch.iova, memory.file, 0n, PAGE), 0);
  assertEquals(iommufd.map(ioas, 0x20_0000n, memory.file, 3n * PAGE, 2n * PAGE), 0);
  assert(await writeArrives(edu, scratch, 0x20_0000n, memory, 3));
  assert(await writeArrives(edu, scratch, 0x20_1000n, memory, 4));
  assert(await readArrives(edu, scratch, 0x20_1000n, memory, 4));
});

await check("It reaches nothing that is not mapped, or no longer", async () => {
  assertEquals(await writeArrives(edu, scratch, 0x30_0000n, memory, 3), false);
  assertEquals(iommufd.unmap(ioas, 0x20_0000n, 2n * PAGE), 0);
  assertEquals(await writeArrives(edu, scratch, 0x20_0000n, memory, 3), false);
  assertEquals(await readArrives(edu, scratch, 0x20_1000n, memory, 4), false);
});
