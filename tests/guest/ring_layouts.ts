/**
 * The ring layouts that a guest can be offered, and a guest that uses a ring of any of them.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { EDU_SLOT, type Guest } from "./lab/mod.ts";
import type { ServedDevice } from "./served_device.ts";
import { assertReached } from "./translations.ts";

const PAGE = 4096;

/** Arguments of `serve --rings`, by what they offer. */
export const LAYOUTS: Readonly<Record<string, string>> = {
  "packed rings": "packed,indirect,event-index",
  "split rings with indirect tables": "indirect,event-index",
  "split rings without indirect tables": "event-index",
  "split rings with nothing else": "none",
  "split rings used in order": "in-order,indirect,event-index",
  "packed rings used in order": "packed,in-order,indirect,event-index,notification-data",
  "packed rings without event index": "packed,indirect",
  "packed rings without indirect tables": "packed,event-index",
};

/** Where each ring feature is among a device's feature bits (virtio 1.4, 6). */
const FEATURE_BITS: Readonly<Record<string, number>> = {
  "indirect": 28,
  "event-index": 29,
  "packed": 34,
  "in-order": 35,
};

/**
 * The guest's driver agreed to these ring features and to no other. QEMU's own options of the device
 * (`packed=`, `event_idx=` …) do not matter: it passes on what the back end offers.
 */
export async function assertLayout(guest: Guest, rings: string): Promise<void> {
  const path = "/sys/bus/virtio/drivers/virtio_iommu/virtio*/features";
  const bits = (await guest.run(`cat ${path}`)).join("");
  const agreed = Object.keys(FEATURE_BITS).filter((name) => bits[FEATURE_BITS[name]] === "1");
  const offered = Object.keys(FEATURE_BITS).filter((name) => rings.split(",").includes(name));
  assertEquals(agreed, offered, `features ${bits}`);
}

/** Maps and unmaps pages of a booted guest, more often than its ring has entries; no request may fail. */
export async function mapThroughRing(guest: Guest, device: ServedDevice): Promise<void> {
  await guest.openVfio(`0000:00:0${EDU_SLOT}.0`);
  await guest.bench(0x1000_0000, PAGE, 400);
  const mapped = await guest.map(0x100_0000, 64 * PAGE, "rw", "scattered");
  await assertReached(device, EDU_SLOT * 8, mapped);
  assertEquals(await guest.unmap(0x100_0000, 64 * PAGE), 64 * PAGE);
  await assertNoneFailed(device);
}

/** No request of the guest's was answered with an error. */
export async function assertNoneFailed(device: ServedDevice): Promise<void> {
  const { requests } = await device.state();
  assertEquals(
    Object.values(requests).flatMap((statuses) => Object.keys(statuses)).filter((s) => s !== "OK"),
    [],
    JSON.stringify(requests),
  );
}
