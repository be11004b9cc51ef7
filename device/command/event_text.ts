/** Events of a device as text. */
import { pathLines } from "../../pagetable/mod.ts";
import { endpointText } from "../address.ts";
import type { DeviceEvent } from "../iommu/device_events.ts";

/** An event in a line: what happened, and why. */
export function eventLine(event: DeviceEvent): string {
  switch (event.kind) {
    case "refused": {
      const { request, status, statement, reason } = event;
      const values = Object.entries(event.values).map(([name, value]) => `${name} ${value}`);
      return `${request} refused with ${status}: ${reason}` +
        (statement === null ? "" : ` (${statement} of docs/conformance.md)`) +
        (values.length === 0 ? "" : `: ${values.join(", ")}`);
    }
    case "fault": {
      const { endpoint, access, address, reason, code, format } = event;
      return `fault of ${
        endpointText(endpoint)
      }: ${access} ${address}: ${reason} (${code}), ${format}`;
    }
    case "reset":
      return "reset: all endpoints are detached";
    default:
      return `${event.kind} ${endpointText(event.endpoint)}, domain ${event.domain}`;
  }
}

/** An event with its time, and below it the path of a fault. */
export function eventText(event: DeviceEvent): string {
  const time = new Date(event.time).toISOString().slice(11, 23);
  const path = event.kind === "fault" ? pathLines(event.path) : [];
  return [`${time} ${eventLine(event)}`, ...path.map((line) => `  ${line}`)].join("\n");
}
