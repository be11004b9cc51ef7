/** A device of the host as `endpoint` and `inspect` show it. */
import type { HostDeviceState } from "../endpoint/mod.ts";

/** What a device is attached to, in words. */
const PLACES = {
  vmm: "where the VMM has attached it",
  domain: "in its domain",
  bypass: "in bypass",
  blocked: "blocked",
  unknown: "not attached yet",
};

/** `0000:01:00.0 of the host, group 12 with 0000:01:00.1, bound by the VMM, in bypass`. */
export function hostDeviceText(
  { address, group, siblings, bound, attachedTo }: HostDeviceState,
): string {
  const others = siblings.length === 0 ? "" : ` with ${siblings.join(", ")}`;
  return `${address} of the host, group ${group}${others}, ` +
    `${bound ? "bound by the VMM" : "not bound"}, ${PLACES[attachedTo]}`;
}
