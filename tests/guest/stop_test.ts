/**
 * A machine that is stopped and goes on, and one that is reset: QEMU announces neither, and to the device they
 * look much alike. But after a stop every mapping must be there, for the guest knows nothing of it; after a
 * reset none may be, although nobody has unmapped it.
 *
 * Split rings and resets in the long mode (`VIOMMU_TEST=full`) only.
 */
import { assert, assertEquals } from "@std/assert";
import { delay } from "@std/async";
import { isLong } from "../long_mode.ts";
import {
  EDU_SLOT,
  Guest,
  type Lab,
  labTests,
  machineArguments,
  type MappedRun,
  Monitor,
  prepareLab,
} from "./lab/mod.ts";
import { domainOf } from "./mapping_comparison.ts";
import { assertLayout, assertNoneFailed } from "./ring_layouts.ts";
import { attachArguments, ServedDevice, type State } from "./served_device.ts";
import { temporaryFolder } from "./temporary_folder.ts";

const PAGE = 4096;
const ENDPOINT = EDU_SLOT * 8;
/** Where the guest maps, bytes, and how much at once. */
const FIRST = 0x100_0000;
const SECOND = 0x200_0000;
const BENCH = 0x1000_0000;
const SIZE = 64 * PAGE;
/** Map calls, and as many unmap calls, while the machine is stopped. */
const CALLS = 3000;
/** Stops meanwhile at most, and the milliseconds between them. */
const STOPS = 5;
const BETWEEN = 20;

/** Every page of some mappings leads where the guest says. */
async function assertReached(device: ServedDevice, runs: readonly MappedRun[]): Promise<void> {
  for (const { iova, phys, pages } of runs) {
    for (let offset = 0; offset < pages * PAGE; offset += PAGE) {
      const answer = await device.translate(ENDPOINT, iova + offset, "w");
      assertEquals(Number(answer.fault === undefined && answer.phys), phys + offset);
    }
  }
}

/** Stops a machine, and waits until the device's rings have stopped and started again. */
async function stopAndGoOn(
  monitor: Monitor,
  device: ServedDevice,
  whileStopped: () => Promise<void>,
): Promise<void> {
  await monitor.command("stop");
  assert((await monitor.command("info status")).includes("paused"));
  await whileStopped();
  await monitor.command("cont");
  await device.stateWhere("connected", ({ connected }) => connected);
}

/** Stops in the middle of requests: what the rings hold is answered once, neither twice nor never. */
async function stopWhileBusy(guest: Guest, monitor: Monitor, device: ServedDevice): Promise<void> {
  const before = await answered(device);
  let inTheMiddle = 0;
  const bench = guest.bench(BENCH, PAGE, CALLS);
  for (let i = 0; i < STOPS; i++) {
    await delay(BETWEEN);
    await stopAndGoOn(monitor, device, async () => {
      const count = await answered(device) - before;
      if (count > 0 && count < 2 * CALLS) inTheMiddle++;
    });
  }
  await bench;
  assertEquals(await answered(device) - before, 2 * CALLS);
  assert(inTheMiddle > 0, "the machine was stopped while the guest was busy");
}

/** MAP and UNMAP requests that succeeded so far. */
async function answered(device: ServedDevice): Promise<number> {
  const { requests } = await device.state();
  return (requests.MAP?.OK ?? 0) + (requests.UNMAP?.OK ?? 0);
}

/** Arguments of a machine with a monitor in `folder`. */
async function machineWithMonitor(
  lab: Lab,
  device: ServedDevice,
  folder: string,
): Promise<readonly string[]> {
  const initramfs = `${folder}/initramfs.gz`;
  await lab.writeInitramfs(initramfs);
  const attach = await attachArguments(device, folder);
  const monitor = Monitor.arguments(`${folder}/monitor.sock`);
  return machineArguments("x86_64", {
    kernel: lab.kernel,
    initramfs,
    restarts: true,
    devices: [...attach, ...monitor, "-device", `edu,addr=${EDU_SLOT}`],
  });
}

async function stopGuest(lab: Lab, rings: string): Promise<void> {
  await using folder = await temporaryFolder();
  await using device = await ServedDevice.start(folder.path, ["--rings", rings]);
  const machine = await machineWithMonitor(lab, device, folder.path);
  await using guest = await Guest.boot(lab.qemu, machine);
  using monitor = await Monitor.connect(`${folder.path}/monitor.sock`);
  await assertLayout(guest, rings);
  await guest.openVfio(`0000:00:0${EDU_SLOT}.0`);
  const before = await guest.map(FIRST, SIZE, "rw", "scattered");
  const { domains } = await device.state();

  await stopAndGoOn(monitor, device, async () => {
    assertEquals((await device.state()).domains, domains, "a stop takes nothing away");
    await assertReached(device, before);
  });
  await assertReached(device, before);
  assertEquals((await device.state()).domains, domains, "nor does going on");

  await stopWhileBusy(guest, monitor, device);
  const after = await guest.map(SECOND, SIZE, "rw", "scattered");
  await assertReached(device, before);
  await assertReached(device, after);
  assertEquals(await guest.unmap(FIRST, SIZE), SIZE);
  assertEquals((await device.translate(ENDPOINT, FIRST, "r")).fault !== undefined, true);
  await assertReached(device, after);
  assertEquals(await guest.unmap(SECOND, SIZE), SIZE);
  assertEquals(domainOf(await device.state(), ENDPOINT).mappings, 0);
  await assertNoneFailed(device);
  await guest.powerOff();
  assertEquals(await device.stop(), 0);
}

/** What the guest has made; the tables are another matter. */
function domainsOf({ domains }: State): unknown {
  return domains.map(({ id, bypass, endpoints, pages }) => ({ id, bypass, endpoints, pages }));
}

async function resetGuest(lab: Lab, rings: string): Promise<void> {
  await using folder = await temporaryFolder();
  await using device = await ServedDevice.start(folder.path, ["--rings", rings]);
  const machine = await machineWithMonitor(lab, device, folder.path);
  await using guest = await Guest.boot(lab.qemu, machine);
  using monitor = await Monitor.connect(`${folder.path}/monitor.sock`);
  await assertLayout(guest, rings);
  const fresh = domainsOf(await device.state());
  await guest.openVfio(`0000:00:0${EDU_SLOT}.0`);
  await assertReached(device, await guest.map(FIRST, SIZE, "rw", "scattered"));

  await monitor.command("system_reset");
  await guest.ready();
  assert((await device.translate(ENDPOINT, FIRST, "w")).fault !== undefined);
  assertEquals(domainsOf(await device.state()), fresh, "as after the first boot");
  await guest.openVfio(`0000:00:0${EDU_SLOT}.0`);
  await assertReached(device, await guest.map(FIRST, SIZE, "rw", "scattered"));
  await assertNoneFailed(device);
  await guest.powerOff();
  assertEquals(await device.stop(), 0);
}

/** What a device offers unless told otherwise. */
const DEFAULT = "packed,event-index,in-order";
const SPLIT = "event-index";

/** The tests of the long mode. */
const LONG: Readonly<Record<string, (lab: Lab) => Promise<void>>> = {
  "A guest with split rings that is stopped and goes on keeps its mappings": (lab) =>
    stopGuest(lab, SPLIT),
  "A guest that is reset in the middle of its work leaves no mapping behind": (lab) =>
    resetGuest(lab, DEFAULT),
  "A guest with split rings that is reset leaves no mapping behind": (lab) =>
    resetGuest(lab, SPLIT),
};

await labTests(() => prepareLab("x86_64"), {
  "A guest that is stopped and goes on keeps its mappings, and maps and unmaps on": (lab) =>
    stopGuest(lab, DEFAULT),
  ...(isLong ? LONG : {}),
});
