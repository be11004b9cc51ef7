/**
 * DPDK's `testpmd`, an unmodified vhost-user back end, behind our IOMMU: the guest's network card works through
 * translations that the guest's MAPs made, and the back end acknowledges an INVALIDATE before an UNMAP is answered.
 */
import { assert, assertEquals } from "@std/assert";
import { isLong } from "../long_mode.ts";
import { type Dpdk, findDpdk, type Guest, type Lab, labTests, prepareLab } from "./lab/mod.ts";
import { checkPings, proxyOf, replaceBackEnd, restartDriverAndGuest } from "./proxy_checks.ts";
import {
  bootNet,
  configureNet,
  type NetMachineOptions,
  ping,
  proxyArguments,
  startTestpmd,
  type TestpmdOptions,
  transmitRate,
} from "./proxy_machine.ts";
import { ServedDevice } from "./served_device.ts";
import { temporaryFolder } from "./temporary_folder.ts";

/** What the tests need. */
interface Prepared {
  readonly lab: Lab;
  readonly dpdk: Dpdk;
}

/** How a run differs from the usual one. */
interface RunOptions extends NetMachineOptions, TestpmdOptions {
  /** The program to serve with; `main.ts` by default. */
  readonly program?: string;
}

/** Runs a test with a guest, its card, the proxy and the back end. */
async function withNet(
  { lab, dpdk }: Prepared,
  options: RunOptions,
  test: (guest: Guest, device: ServedDevice) => Promise<void>,
): Promise<void> {
  await using folder = await temporaryFolder();
  await using _testpmd = await startTestpmd(dpdk, folder.path, options);
  const mode = options.connects === true ? ",backend-mode=listen" : "";
  await using device = await ServedDevice.start(
    folder.path,
    proxyArguments(folder.path, mode),
    options.program,
  );
  await using guest = await bootNet(lab, folder.path, device, options);
  await configureNet(guest);
  await test(guest, device);
  await guest.powerOff();
  assertEquals(await device.stop(), 0);
}

/** Pings with the usual options. */
async function pingThrough(prepared: Prepared): Promise<void> {
  await withNet(prepared, {}, async (guest, device) => {
    await checkPings(guest, device);
    const { misses, identityUpdates } = proxyOf(await device.state());
    assertEquals(misses, 0, "everything was pushed in time");
    assertEquals(identityUpdates, 0, "and nothing that was not translated, at any time");
  });
}

/** Unbinds and binds the driver and restarts the guest; DPDK connects to the proxy. */
async function restart(prepared: Prepared): Promise<void> {
  const options = { restarts: true, connects: true };
  await withNet(prepared, options, async (guest, device) => {
    await checkPings(guest, device);
    await restartDriverAndGuest(guest, device, 3);
  });
}

/** DPDK ends and is started again, with either side connecting. */
async function restartBackEnd({ lab, dpdk }: Prepared): Promise<void> {
  for (const connects of [false, true]) {
    await using folder = await temporaryFolder();
    const mode = connects ? ",backend-mode=listen" : "";
    await using device = await ServedDevice.start(folder.path, proxyArguments(folder.path, mode));
    let testpmd = await startTestpmd(dpdk, folder.path, { connects });
    await using _last = { [Symbol.asyncDispose]: () => testpmd[Symbol.asyncDispose]() };
    await using guest = await bootNet(lab, folder.path, device, { reconnects: true });
    await configureNet(guest);
    await checkPings(guest, device);
    await replaceBackEnd(guest, device, () => testpmd[Symbol.asyncDispose](), async () => {
      testpmd = await startTestpmd(dpdk, folder.path, { connects });
    });
    await guest.powerOff();
    assertEquals(await device.stop(), 0);
  }
}

/** The control: without INVALIDATE the back end goes on to use pages that were unmapped. */
async function withoutInvalidation(prepared: Prepared): Promise<void> {
  const program = new URL("serve_without_invalidation.ts", import.meta.url).pathname;
  await withNet(prepared, { program }, async (guest, device) => {
    const count = 20;
    const answered = await ping(guest, count, 2);
    assert(answered < count, `${answered} of ${count} pings were answered`);
    const { invalidations, updates } = proxyOf(await device.state());
    assertEquals(invalidations, 0);
    assert(updates > 0);
  });
}

/** Compares the packets a second that a strict guest sends with the card behind the IOMMU and without one. */
async function compareRates(prepared: Prepared): Promise<void> {
  const rates: number[] = [];
  for (const translated of [true, false]) {
    await withNet(prepared, { translated }, async (guest, device) => {
      assertEquals(await ping(guest, 1), 1);
      rates.push(await transmitRate(guest, translated ? 5000 : 50_000));
      const { updates } = proxyOf(await device.state());
      assertEquals(updates > 0, translated);
    });
  }
  console.error(
    `proxy: the guest sends ${rates[0]} packets a second behind the IOMMU (strict), ` +
      `${rates[1]} without one`,
  );
}

await labTests(async () => ({ lab: await prepareLab("x86_64"), dpdk: await findDpdk() }), {
  "A guest pings through DPDK behind the IOMMU, 200 of 200": pingThrough,
  ...(isLong
    ? {
      "The driver's and the guest's restart, with a DPDK that connects to us": restart,
      "The back end's restart, with either side connecting": restartBackEnd,
      "The control: without INVALIDATE the pings fail": withoutInvalidation,
      "Packet rates with and without the IOMMU": compareRates,
    }
    : {}),
});
