/**
 * A plain Linux guest on QEMU finds the device, probes and attaches its endpoints, is stopped and goes on, maps through
 * VFIO, restarts and ends.
 *
 * Each page that it maps is compared: the guest's `/proc/self/pagemap` gives the page's guest-physical address, and the API
 * socket gives the address that our tables hold.
 */
import { assert, assertEquals } from "@std/assert";
import { assertAttached } from "./attach_checks.ts";
import { checkInOrder, type Lab, labTests, prepareLab } from "./lab/mod.ts";
import { mapAndCompare, VTD_SECOND_STAGE } from "./mapping_comparison.ts";
import { bootPlain, EDU_ENDPOINT } from "./plain_machine.ts";
import { Random, seed } from "./random.ts";
import { assertLayout } from "./ring_layouts.ts";
import type { State } from "./served_device.ts";
import { checkStops } from "./stop_checks.ts";
import { temporaryFolder } from "./temporary_folder.ts";

/** The ring features that a device offers by default. */
const DEFAULT_RINGS = "packed,event-index,in-order";

/** The endpoints of all domains. */
function inDomains(state: State): readonly number[] {
  return state.domains.flatMap(({ endpoints }) => endpoints).sort();
}

async function liveOnce(lab: Lab, context: Deno.TestContext): Promise<void> {
  await using folder = await temporaryFolder();
  await using plain = await bootPlain(lab, folder.path);
  const { guest, device } = plain;
  let first: State | undefined;
  await checkInOrder(context, {
    "Its driver agrees to the offered ring features and logs the input address width": async () => {
      await assertLayout(guest, DEFAULT_RINGS);
      const log = await guest.run("dmesg | grep virtio_iommu");
      assert(log.some((line) => line.includes("input address: 48 bits")), log.join("\n"));
    },
    "It probes and attaches all its endpoints": async () => {
      first = await assertAttached(guest, device);
    },
    "A stop keeps its mappings, and it maps and unmaps afterwards": () => checkStops(plain),
    "Every page it maps through VFIO translates to its address, and none after it is unmapped":
      async () => {
        await mapAndCompare(guest, device, EDU_ENDPOINT, VTD_SECOND_STAGE, new Random(seed()));
        await guest.closeVfio();
      },
    "It attaches the same endpoints after a restart": async () => {
      assert(first !== undefined);
      await guest.reboot();
      const second = await assertAttached(guest, device);
      assertEquals(inDomains(second), inDomains(first), "nothing of the first boot is left");
      assertEquals(second.domains.length, first.domains.length);
    },
    "After power-off no domain and no socket is left": async () => {
      await guest.powerOff();
      const ended = await device.stateWhere("disconnected", (state) => !state.connected);
      assertEquals(ended.domains, []);
      assertEquals(await device.stop(), 0);
      const left = (await Array.fromAsync(Deno.readDir(folder.path))).map(({ name }) => name);
      const sockets = ["vhost.sock", "api.sock"];
      assertEquals(left.filter((name) => sockets.includes(name)), [], "its sockets are gone");
    },
  });
}

await labTests(() => prepareLab("x86_64"), {
  "A Linux guest boots, is stopped, maps, restarts and ends behind the IOMMU": liveOnce,
});
