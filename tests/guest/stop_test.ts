/**
 * A machine that is stopped and goes on, and one that is reset: QEMU announces neither, and to the device they
 * look alike. After a stop every mapping must still be there, for the guest does not notice a stop; after a reset
 * none may be, although none was unmapped.
 *
 * In the long mode (`VIOMMU_TEST=full`) only: `boot_test.ts` stops a guest in every run.
 */
import { assert, assertEquals } from "@std/assert";
import { isLong } from "../long_mode.ts";
import { type Lab, labTests, prepareLab } from "./lab/mod.ts";
import { bootPlain, EDU_ADDRESS, EDU_ENDPOINT } from "./plain_machine.ts";
import { assertLayout, assertNoneFailed } from "./ring_layouts.ts";
import type { State } from "./served_device.ts";
import { checkStops, FIRST, SIZE } from "./stop_checks.ts";
import { temporaryFolder } from "./temporary_folder.ts";
import { assertReached } from "./translations.ts";

/** The domains as the guest made them, without their tables. */
function domainsOf({ domains }: State): unknown {
  return domains.map(({ id, bypass, endpoints, pages }) => ({ id, bypass, endpoints, pages }));
}

async function stopGuest(lab: Lab, rings: string): Promise<void> {
  await using folder = await temporaryFolder();
  await using plain = await bootPlain(lab, folder.path, ["--rings", rings]);
  const { guest, device } = plain;
  await assertLayout(guest, rings);
  await checkStops(plain);
  await guest.powerOff();
  assertEquals(await device.stop(), 0);
}

async function resetGuest(lab: Lab, rings: string): Promise<void> {
  await using folder = await temporaryFolder();
  await using plain = await bootPlain(lab, folder.path, ["--rings", rings]);
  const { guest, device, monitor } = plain;
  await assertLayout(guest, rings);
  const fresh = domainsOf(await device.state());
  await guest.openVfio(EDU_ADDRESS);
  await assertReached(device, EDU_ENDPOINT, await guest.map(FIRST, SIZE, "rw", "scattered"));

  await monitor.command("system_reset");
  await guest.ready();
  assert((await device.translate(EDU_ENDPOINT, FIRST, "w")).fault !== undefined);
  assertEquals(domainsOf(await device.state()), fresh, "as after the first boot");
  await guest.openVfio(EDU_ADDRESS);
  await assertReached(device, EDU_ENDPOINT, await guest.map(FIRST, SIZE, "rw", "scattered"));
  await assertNoneFailed(device);
  await guest.powerOff();
  assertEquals(await device.stop(), 0);
}

/** The ring features that a device offers by default. */
const DEFAULT = "packed,event-index,in-order";
const SPLIT = "event-index";

if (isLong) {
  await labTests(() => prepareLab("x86_64"), {
    "A guest with split rings that is stopped and goes on keeps its mappings": (lab) =>
      stopGuest(lab, SPLIT),
    "A guest that is reset in the middle of its work leaves no mapping behind": (lab) =>
      resetGuest(lab, DEFAULT),
    "A guest with split rings that is reset leaves no mapping behind": (lab) =>
      resetGuest(lab, SPLIT),
  });
}
