/**
 * Checks that a Linux guest attached its PCI functions to domains.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { Guest } from "./lab/mod.ts";
import type { ServedDevice, State } from "./served_device.ts";

/** The requester id of the IOMMU itself. */
const IOMMU = 0x10;

/** Requester ids of the guest's PCI functions, by whether Linux put them into an IOMMU group. */
async function pciFunctions(guest: Guest): Promise<Map<number, boolean>> {
  const lines = await guest.run(
    "cd /sys/bus/pci/devices && for d in *; do [ -e $d/iommu_group ] && echo $d in || echo $d out; done",
  );
  return new Map(lines.map((line) => {
    const [, bus, slot, fn] = /^0000:(..):(..)\.(.) /.exec(line)!;
    const id = parseInt(bus, 16) * 256 + parseInt(slot, 16) * 8 + Number(fn);
    return [id, line.endsWith(" in")];
  }));
}

/** Every PCI function of the guest but the IOMMU is in a domain, and nothing failed on the way; the device's state. */
export async function assertAttached(guest: Guest, device: ServedDevice): Promise<State> {
  const functions = await pciFunctions(guest);
  assert(functions.delete(IOMMU), "the guest sees the IOMMU's own PCI function");
  assert(functions.size >= 3, "the machine has endpoints");
  assertEquals(
    [...functions.values()].filter((grouped) => !grouped),
    [],
    "all are in IOMMU groups",
  );
  const state = await device.state();
  const attached = state.endpoints.filter(({ domain }) => domain !== null).map(({ id }) => id);
  assertEquals(attached.sort(), [...functions.keys()].sort());
  assertEquals(
    Object.values(state.requests).flatMap((statuses) => Object.keys(statuses))
      .filter((status) => status !== "OK"),
    [],
    `no request failed: ${JSON.stringify(state.requests)}`,
  );
  assertEquals(state.faults, { reported: 0, dropped: 0 });
  assert(state.requests.PROBE.OK >= functions.size);
  assert(state.requests.ATTACH.OK >= functions.size);
  return state;
}
