/**
 * Runs in L1: stock QEMU with a Linux guest, whose own drivers of the virtio-iommu and of VFIO say what a device of the host
 * reaches. A program in the guest has the device move 8 bytes from one page of its memory to another.
 *
 * Virtio 1.4, 5.13.6: A6 and A8 (what is attached, also elsewhere before), M6 (no writes without WRITE) and U5 (UNMAP removes
 * what it covers), as Linux asks for them; the numbers are those of `docs/conformance.md`.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { Guest } from "../lab/guest.ts";
import { machineArguments } from "../lab/machine.ts";
import type { Qemu } from "../lab/qemu.ts";
import { deviceArguments } from "../served_device.ts";
import { check } from "./checks.ts";
import { ServeProcess } from "./guest.ts";
import { closeFile, openDevice, passOn } from "./libc.ts";
import { bindToVfio, SINGLE } from "./vfio.ts";

/** How many times longer than usual everything may take: the processor that is emulated emulates another. */
const PATIENCE = 6;

// It has the same address in L1 and in the guest.
const path = await bindToVfio(SINGLE);
const [iommufd, device] = [openDevice("/dev/iommu"), openDevice(path)];
passOn(iommufd);
passOn(device);
await using serve = new ServeProcess("/tmp/viommu.sock", [
  "--vfio",
  `00:04.0,fd=${device},iommufd=${iommufd}`,
]);
await serve.listens();

const qemu: Qemu = JSON.parse(await Deno.readTextFile("/programs/qemu.json"));
const machine = machineArguments("x86_64", {
  kernel: JSON.parse(await Deno.readTextFile("/guest/kernel.json")),
  initramfs: "/guest/initramfs",
  memory: 192,
  devices: [
    ...deviceArguments({ socketPath: serve.socket }),
    ...["-acpitable", "file=/guest/viot.aml"],
    ...["-object", `iommufd,id=iommufd0,fd=${iommufd}`],
    ...["-device", `vfio-pci,id=passed,addr=4,iommufd=iommufd0,fd=${device}`],
  ],
});
let guest!: Guest;

await check("A Linux guest boots in it", async () => {
  guest = await Guest.boot(qemu, machine, PATIENCE);
  closeFile(iommufd);
  closeFile(device);
});

await check("Its driver of the IOMMU has the passed-through device", async () => {
  const path = `/sys/bus/pci/devices/${SINGLE}`;
  const [driver] = await guest.run(`basename $(readlink -f ${path}/iommu/device/driver)`);
  assertEquals(driver, "virtio_iommu");
  await guest.run(`echo vfio-pci > ${path}/driver_override`);
  await guest.run(`echo ${SINGLE} > /sys/bus/pci/drivers_probe`);
});

await check(
  "The device reaches what it maps through VFIO, and nothing that is unmapped",
  async () => {
    const lines = await guest.run(`/bin/vfio_edu ${SINGLE} 2>&1`);
    assertEquals(lines, ["mapped 1", "readonly 0", "unmapped 0", "again 1", "source 0"]);
  },
);

await check("It powers off", async () => {
  await guest.powerOff();
  await guest[Symbol.asyncDispose]();
});
