/**
 * Stops a machine and resumes it. Every mapping must still be there afterwards, for the guest does not notice a stop.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { delay } from "@std/async";
import type { Guest, Monitor } from "./lab/mod.ts";
import { domainOf } from "./mapping_comparison.ts";
import { EDU_ADDRESS, EDU_ENDPOINT, type PlainGuest } from "./plain_machine.ts";
import { assertNoneFailed } from "./ring_layouts.ts";
import type { ServedDevice } from "./served_device.ts";
import { assertReached } from "./translations.ts";

const PAGE = 4096;
/** The I/O addresses that the guest maps at, and the bytes of a mapping. */
export const FIRST = 0x100_0000;
const SECOND = 0x200_0000;
const BENCH = 0x1000_0000;
export const SIZE = 64 * PAGE;
/** Map calls, and as many unmap calls, while the machine is stopped again and again. */
const CALLS = 3000;
/** Stops meanwhile at most, and the milliseconds between them. */
const STOPS = 5;
const BETWEEN = 20;

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

/** Stops in the middle of requests: each request in the rings is answered once. */
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

/** Stops the machine while the guest is idle and while it maps and unmaps; both work afterwards. */
export async function checkStops({ guest, device, monitor }: PlainGuest): Promise<void> {
  await guest.openVfio(EDU_ADDRESS);
  const before = await guest.map(FIRST, SIZE, "rw", "scattered");
  const { domains } = await device.state();

  await stopAndGoOn(monitor, device, async () => {
    assertEquals((await device.state()).domains, domains, "a stop takes nothing away");
    await assertReached(device, EDU_ENDPOINT, before);
  });
  await assertReached(device, EDU_ENDPOINT, before);
  assertEquals((await device.state()).domains, domains, "nor does going on");

  await stopWhileBusy(guest, monitor, device);
  const after = await guest.map(SECOND, SIZE, "rw", "scattered");
  await assertReached(device, EDU_ENDPOINT, before);
  await assertReached(device, EDU_ENDPOINT, after);
  assertEquals(await guest.unmap(FIRST, SIZE), SIZE);
  assertEquals((await device.translate(EDU_ENDPOINT, FIRST, "r")).fault !== undefined, true);
  await assertReached(device, EDU_ENDPOINT, after);
  assertEquals(await guest.unmap(SECOND, SIZE), SIZE);
  assertEquals(domainOf(await device.state(), EDU_ENDPOINT).mappings, 0);
  await assertNoneFailed(device);
  await guest.closeVfio();
}
