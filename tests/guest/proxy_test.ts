/**
 * DPDK's `testpmd`, a vhost-user back end that knows nothing of us, behind our IOMMU: the guest's network card works
 * through translations that the guest's own MAPs made, and what the guest unmaps is taken back before it hears so.
 */
import { assert, assertEquals } from "@std/assert";
import { isLong } from "../long_mode.ts";
import { type Dpdk, findDpdk, type Guest, type Lab, labTests, prepareLab } from "./lab/mod.ts";
import {
  bootNet,
  configureNet,
  NET,
  NET_ADDRESS,
  type NetMachineOptions,
  ping,
  proxyArguments,
  startTestpmd,
  type TestpmdOptions,
  transmitRate,
} from "./proxy_machine.ts";
import { ServedDevice, type State } from "./served_device.ts";
import { temporaryFolder } from "./temporary_folder.ts";

const PINGS = 200;

/** What the tests need. */
interface Prepared {
  readonly lab: Lab;
  readonly dpdk: Dpdk;
}

/** What `GET /v1/state` says of the proxy. */
interface ProxyState {
  readonly connected: boolean;
  readonly sessions: number;
  readonly misses: number;
  readonly updates: number;
  readonly identityUpdates: number;
  readonly refused: number;
  readonly invalidations: number;
  readonly acknowledged: number;
  readonly waits: number;
  readonly faults: number;
  readonly timeouts: number;
  readonly medianMicroseconds: number;
  readonly longestMicroseconds: number;
}

/** How a run differs from the usual one. */
interface RunOptions extends NetMachineOptions, TestpmdOptions {
  /** The program to serve with, instead of the one that users run. */
  readonly program?: string;
}

/** A guest with its card, and all that stands behind it, for one test. */
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

/** What the proxy of the card has done. */
function proxyOf(state: State): ProxyState {
  const endpoint = state.endpoints.find(({ id }) => id === NET);
  assert(endpoint !== undefined && "proxy" in endpoint, "the card is proxied");
  return endpoint.proxy as ProxyState;
}

/** The state at a moment at which nothing is on its way. */
async function settled(device: ServedDevice): Promise<State> {
  return await device.stateWhere("settled", (state) => {
    const { invalidations, acknowledged } = proxyOf(state);
    return invalidations === acknowledged;
  });
}

function count(state: State, request: string): number {
  return state.requests[request]?.OK ?? 0;
}

/** All pings are answered, and the counters of both sides agree. */
async function checkPings(guest: Guest, device: ServedDevice): Promise<void> {
  assertEquals(await ping(guest, 1), 1, "somebody answers");
  const before = await settled(device);
  assertEquals(await ping(guest, PINGS), PINGS);
  const after = await settled(device);
  const [old, now] = [proxyOf(before), proxyOf(after)];
  const unmapped = count(after, "UNMAP") - count(before, "UNMAP");
  const mapped = count(after, "MAP") - count(before, "MAP");
  assert(unmapped >= PINGS && mapped >= PINGS, `${mapped} MAP, ${unmapped} UNMAP`);
  assertEquals(now.invalidations - old.invalidations, unmapped, "one INVALIDATE for each UNMAP");
  assertEquals(now.acknowledged - old.acknowledged, unmapped, "and each acknowledged");
  assert(now.updates - old.updates >= mapped, "an UPDATE for each MAP, at least");
  assertEquals([now.refused, now.timeouts, now.faults], [0, 0, 0]);
  assertEquals(now.identityUpdates, old.identityUpdates, "no address is the guest-physical one");
  assertEquals(after.faults, { reported: 0, dropped: 0 });
  for (const [type, statuses] of Object.entries(after.requests)) {
    assertEquals(Object.keys(statuses), ["OK"], type);
  }
  console.error(
    `proxy: ${mapped} MAP, ${unmapped} UNMAP, ${now.updates - old.updates} UPDATE, ` +
      `${now.misses - old.misses} MISS; an INVALIDATE took ${now.medianMicroseconds} us (median)`,
  );
}

/** The usual run. */
async function pingThrough(prepared: Prepared): Promise<void> {
  await withNet(prepared, {}, async (guest, device) => {
    await checkPings(guest, device);
    const { misses, identityUpdates } = proxyOf(await device.state());
    assertEquals(misses, 0, "everything was pushed in time");
    assertEquals(identityUpdates, 0, "and nothing that was not translated, at any time");
  });
}

/** The driver comes and goes, the guest restarts; DPDK connects to us. */
async function restart(prepared: Prepared): Promise<void> {
  const options = { restarts: true, connects: true };
  await withNet(prepared, options, async (guest, device) => {
    await checkPings(guest, device);
    for (let i = 0; i < 3; i++) {
      await guest.run(`echo ${NET_ADDRESS} > /sys/bus/pci/drivers/virtio-pci/unbind`);
      await guest.run(`echo ${NET_ADDRESS} > /sys/bus/pci/drivers/virtio-pci/bind`);
      await configureNet(guest);
      assertEquals(await ping(guest, 50), 50, `after ${i + 1} times`);
    }
    await guest.reboot();
    await configureNet(guest);
    await checkPings(guest, device);
    assertEquals(proxyOf(await device.state()).sessions, 1, "QEMU kept its connection");
  });
}

/** DPDK dies and comes back; QEMU connects again, and the guest notices only that packets were lost. */
async function restartBackEnd({ lab, dpdk }: Prepared): Promise<void> {
  for (const connects of [false, true]) {
    await using folder = await temporaryFolder();
    const mode = connects ? ",backend-mode=listen" : "";
    await using device = await ServedDevice.start(folder.path, proxyArguments(folder.path, mode));
    const first = await startTestpmd(dpdk, folder.path, { connects });
    await using guest = await bootNet(lab, folder.path, device, { reconnects: true });
    await configureNet(guest);
    await checkPings(guest, device);
    await first[Symbol.asyncDispose]();
    await device.stateWhere("disconnected", (state) => !proxyOf(state).connected);
    await using _second = await startTestpmd(dpdk, folder.path, { connects });
    await device.stateWhere("connected again", (state) => proxyOf(state).connected);
    // The guest's link goes down and up again, and packets with it.
    let tries = 0;
    while (await ping(guest, 20) < 20) assert(++tries < 10, "the guest's link comes up again");
    await checkPings(guest, device);
    assertEquals(proxyOf(await device.state()).sessions, 2);
    await guest.powerOff();
    assertEquals(await device.stop(), 0);
  }
}

/** The control: without INVALIDATE the back end goes on with pages that are not its own any more. */
async function withoutInvalidation(prepared: Prepared): Promise<void> {
  const program = new URL("serve_without_invalidation.ts", import.meta.url).pathname;
  await withNet(prepared, { program }, async (guest, device) => {
    const answered = await ping(guest, PINGS);
    assert(answered < PINGS, `${answered} of ${PINGS} pings were answered`);
    const { invalidations, updates } = proxyOf(await device.state());
    assertEquals(invalidations, 0);
    assert(updates > 0);
  });
}

/** Packets a second that the guest sends, strict, with the card behind the IOMMU and not. */
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
      "The back end's restart, whoever connects": restartBackEnd,
      "The control: without INVALIDATE the pings fail": withoutInvalidation,
      "Packet rates with and without the IOMMU": compareRates,
    }
    : {}),
});
