/**
 * Uses a network card behind a proxy in a guest, and verifies the counters of the proxy.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { until } from "../until.ts";
import type { Guest } from "./lab/mod.ts";
import { configureNet, NET, NET_ADDRESS, ping } from "./proxy_machine.ts";
import type { ServedDevice, State } from "./served_device.ts";

/** Pings of one check. */
const PINGS = 200;

/** What `GET /v1/state` says of the proxy. */
export interface ProxyState {
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

/** The state of the card's proxy. */
export function proxyOf(state: State): ProxyState {
  const endpoint = state.endpoints.find(({ id }) => id === NET);
  assert(endpoint !== undefined && "proxy" in endpoint, "the card is proxied");
  return endpoint.proxy as ProxyState;
}

/** The state at a moment at which every INVALIDATE has been acknowledged. */
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
export async function checkPings(guest: Guest, device: ServedDevice): Promise<void> {
  assertEquals(await ping(guest, 1), 1, "the peer answers");
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

/** Unbinds the card's driver and binds it again, so many times, then restarts the guest; pings are answered each time. */
export async function restartDriverAndGuest(
  guest: Guest,
  device: ServedDevice,
  times: number,
): Promise<void> {
  for (let i = 0; i < times; i++) {
    await guest.run(`echo ${NET_ADDRESS} > /sys/bus/pci/drivers/virtio-pci/unbind`);
    await guest.run(`echo ${NET_ADDRESS} > /sys/bus/pci/drivers/virtio-pci/bind`);
    await configureNet(guest);
    assertEquals(await ping(guest, 50), 50, `after ${i + 1} times`);
  }
  await guest.reboot();
  await configureNet(guest);
  await checkPings(guest, device);
  assertEquals(proxyOf(await device.state()).sessions, 1, "QEMU kept its connection");
}

/**
 * Stops the back end and starts another one. QEMU connects again, and the guest notices only that packets were lost.
 */
export async function replaceBackEnd(
  guest: Guest,
  device: ServedDevice,
  stop: () => Promise<void>,
  start: () => Promise<void>,
): Promise<void> {
  await stop();
  await device.stateWhere("disconnected", (state) => !proxyOf(state).connected);
  await start();
  await device.stateWhere("connected again", (state) => proxyOf(state).connected);
  // The guest's link goes down and up again, and packets are lost meanwhile.
  await until(async () => await ping(guest, 1, 1) === 1, "the guest's link comes up again");
  await checkPings(guest, device);
  assertEquals(proxyOf(await device.state()).sessions, 2);
}
