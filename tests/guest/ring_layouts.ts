/**
 * The ring layouts that QEMU can negotiate, and a guest that uses a ring of any of them.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { EDU_SLOT, type Guest } from "./lab/mod.ts";
import type { ServedDevice } from "./served_device.ts";

const PAGE = 4096;

/** Options of QEMU's device, by what they make of the rings. */
export const LAYOUTS: Readonly<Record<string, string>> = {
  "packed rings": "packed=on",
  "split rings without event index": "event_idx=off",
  "split rings without indirect tables": "indirect_desc=off",
  "split rings used in order": "in_order=on",
  "packed rings used in order": "packed=on,in_order=on",
  "packed rings without event index": "packed=on,event_idx=off",
  "packed rings without indirect tables": "packed=on,indirect_desc=off",
};

/** QEMU arguments with the IOMMU's rings in a layout. */
export function withLayout(args: readonly string[], options: string): readonly string[] {
  return args.map((argument) =>
    argument.startsWith("vhost-user-test-device-pci") ? `${argument},${options}` : argument
  );
}

/** Maps and unmaps pages of a booted guest, more often than its ring has entries; no request may fail. */
export async function mapThroughRing(guest: Guest, device: ServedDevice): Promise<void> {
  await guest.openVfio(`0000:00:0${EDU_SLOT}.0`);
  await guest.bench(0x1000_0000, PAGE, 400);
  for (const run of await guest.map(0x100_0000, 64 * PAGE, "rw", "scattered")) {
    for (let page = 0; page < run.pages; page++) {
      const answer = await device.translate(EDU_SLOT * 8, run.iova + page * PAGE, "w");
      assertEquals(Number(answer.fault === undefined && answer.phys), run.phys + page * PAGE);
    }
  }
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
