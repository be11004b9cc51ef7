/**
 * A port of Open vSwitch behind our IOMMU, unmodified: the guest reaches the switch's own address through translations
 * that its own MAPs made. In the long mode (`VIOMMU_TEST=full`) only.
 */
import { assertEquals } from "@std/assert";
import { isLong } from "../long_mode.ts";
import { findOpenVswitch, type Lab, labTests, type OpenVswitch, prepareLab } from "./lab/mod.ts";
import { RunningSwitch } from "./open_vswitch.ts";
import { checkPings, proxyOf, replaceBackEnd, restartDriverAndGuest } from "./proxy_checks.ts";
import {
  bootNet,
  configureNet,
  PEER_ADDRESS,
  proxyArguments,
  proxySockets,
} from "./proxy_machine.ts";
import { ServedDevice } from "./served_device.ts";
import { temporaryFolder } from "./temporary_folder.ts";

/** What the test needs. */
interface Prepared {
  readonly lab: Lab;
  readonly programs: OpenVswitch;
}

/** The driver, the guest and the switch are restarted one after the other. */
async function pingTheBridge({ lab, programs }: Prepared): Promise<void> {
  await using folder = await temporaryFolder();
  const { backEnd } = proxySockets(folder.path);
  const address = `${PEER_ADDRESS}/24`;
  await using bridge = await RunningSwitch.start(programs, folder.path, backEnd, address);
  const listening = proxyArguments(folder.path, ",backend-mode=listen");
  await using device = await ServedDevice.start(folder.path, listening);
  const options = { restarts: true, reconnects: true };
  await using guest = await bootNet(lab, folder.path, device, options);
  await configureNet(guest);
  await checkPings(guest, device);
  const { misses, identityUpdates } = proxyOf(await device.state());
  assertEquals([misses, identityUpdates], [0, 0], "everything was pushed in time, and translated");
  await restartDriverAndGuest(guest, device, 1);
  await replaceBackEnd(guest, device, () => bridge.stopDaemon(), () => bridge.startDaemon());
  await guest.powerOff();
  assertEquals(await device.stop(), 0);
}

if (isLong) {
  await labTests(
    async () => ({ lab: await prepareLab("x86_64"), programs: await findOpenVswitch() }),
    {
      "A guest pings a bridge of Open vSwitch behind the IOMMU, after restarts too": pingTheBridge,
    },
  );
}
