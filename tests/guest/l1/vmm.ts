/**
 * Runs in L1: stock QEMU with `vfio-pci` and iommufd, and `serve` that attaches the same device beneath it. What the device
 * reaches is what its DMA moved.
 *
 * Each of the two deaths that matter comes once: QEMU's, after which the device is stopped and free, and that of `serve`,
 * after which the device goes on.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  unmapRequest,
} from "../../../device/iommu/driver_requests.ts";
import { until } from "../../until.ts";
import { check } from "./checks.ts";
import { ServeProcess } from "./guest.ts";
import { closeFile, openDevice, passOn } from "./libc.ts";
import { type Place, QemuMachine } from "./qemu_machine.ts";
import { bindToVfio, HostDevice, HostIommufd } from "./vfio.ts";

const ADDRESS = "0000:00:04.0";
const ENDPOINT = 0x20;
const DOMAIN = 1;
const PAGE = 4096n;

/** Two guest pages untranslated, and two others where requests map them to. */
const LOW: Place = { page: 0x200, frame: 0x200 };
const HIGH: Place = { page: 0x201, frame: 0x201 };
const A: Place = { page: 0x4_0000, frame: 0x300 };
const B: Place = { page: 0x4_0001, frame: 0x301 };

const MAP = mapRequest({
  domain: DOMAIN,
  virtStart: BigInt(A.page) * PAGE,
  virtEnd: BigInt(B.page + 1) * PAGE - 1n,
  physStart: BigInt(A.frame) * PAGE,
  flags: 3,
});
const UNMAP = unmapRequest(DOMAIN, BigInt(A.page) * PAGE, BigInt(B.page + 1) * PAGE - 1n);

const path = await bindToVfio(ADDRESS);

/** Whether the device can be bound by another: no process holds its file. */
function isFree(): boolean {
  const iommufd = new HostIommufd();
  let device: HostDevice | undefined;
  try {
    device = new HostDevice(path);
    device.bind(iommufd);
    return true;
  } catch {
    return false;
  } finally {
    if (device !== undefined) closeFile(device.file);
    closeFile(iommufd.file);
  }
}

/** Attaches the endpoint and maps the two pages. */
async function attachAndMap(machine: QemuMachine): Promise<void> {
  assertEquals(await machine.request(attachRequest(DOMAIN, ENDPOINT)), "OK");
  assertEquals(await machine.request(MAP), "OK");
  assert(await machine.moves(A, B));
  assert(!await machine.moves(LOW, HIGH));
}

/** With files that both inherit, as from a program that starts them. */
{
  const [iommufd, device] = [openDevice("/dev/iommu"), openDevice(path)];
  passOn(iommufd);
  passOn(device);
  await using serve = new ServeProcess("/tmp/first.sock", [
    "--vfio",
    `00:04.0,fd=${device},iommufd=${iommufd}`,
  ]);
  await serve.listens();
  const machine = await QemuMachine.start(serve.socket, `,fd=${iommufd}`, `fd=${device}`);
  closeFile(iommufd);
  closeFile(device);

  await check("Before the guest's driver the device reaches all guest memory", async () => {
    assert(await machine.moves(LOW, HIGH));
    await machine.startDriver();
    assert(await machine.moves(LOW, HIGH));
  });

  await check("Beneath QEMU it is attached to what the guest says", async () => {
    await attachAndMap(machine);
    assertEquals(await machine.request(UNMAP), "OK");
    assert(!await machine.moves(A, B));
    assertEquals(await machine.request(MAP), "OK");
    assertEquals(await machine.request(detachRequest(DOMAIN, ENDPOINT)), "OK");
    assert(!await machine.moves(A, B));
    assert(await machine.moves(LOW, HIGH));
  });

  await check("After a reset of the machine its firmware can use it", async () => {
    await attachAndMap(machine);
    await machine.reset();
    await until(() => machine.moves(LOW, HIGH), "the device is let through");
    assert(!await machine.moves(A, B));
  });

  await check("Its next driver finds it in bypass", async () => {
    await machine.startDriver();
    assert(!await machine.moves(A, B));
    assert(await machine.moves(LOW, HIGH));
    await attachAndMap(machine);
  });

  await check("When QEMU is killed the device is stopped and given back", async () => {
    assert(!isFree());
    await machine[Symbol.asyncDispose]();
    await until(isFree, "the device is free");
  });
}

/** With files of QEMU's own, which `serve` takes from its process. */
{
  await using serve = new ServeProcess("/tmp/second.sock", [
    ...["--vfio", "00:04.0,from=vmm", "--sandbox", "off"],
  ]);
  await serve.listens();
  const machine = await QemuMachine.start(serve.socket, "", `host=${ADDRESS}`);

  await check("Files that QEMU has opened itself are taken from its process", async () => {
    await machine.startDriver();
    await attachAndMap(machine);
  });

  await check("When serve is killed the device goes on, until QEMU ends", async () => {
    await serve[Symbol.asyncDispose]();
    assert(await machine.moves(A, B));
    assert(!await machine.moves(LOW, HIGH));
    assert(!isFree());
    await machine[Symbol.asyncDispose]();
    await until(isFree, "the device is free");
  });
}
