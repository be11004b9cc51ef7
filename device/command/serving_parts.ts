/** What serving processes have in common, with a holder and without. */
import { pathLines } from "../../pagetable/mod.ts";
import { createMemoryFile, mapMemoryFile, type SharedMemory } from "../host/mod.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import type { Log } from "../log.ts";
import { eventLine } from "./event_text.ts";
import {
  ARCHITECTURES,
  DEFAULT_GUEST_MEMORY,
  qemuCommands,
  type QemuEndpoints,
} from "./qemu_arguments.ts";

/** Lines for a shell: how guests of each architecture are attached. */
export function guestCommands(socketPath: string, endpoints: QemuEndpoints): readonly string[] {
  const guest = { socketPath, ...endpoints, memory: DEFAULT_GUEST_MEMORY };
  return ARCHITECTURES.flatMap((architecture) => qemuCommands(architecture, guest));
}

/** Logs each event from now on. */
export function traceEvents({ events }: IommuDevice, log: Log): void {
  let last = events.last;
  events.onEvent = () => {
    for (const event of events.since(last)) {
      log.trace(eventLine(event));
      if (event.kind === "fault") {
        for (const line of pathLines(event.path)) log.trace(`  ${line}`);
      }
      last = event.number;
    }
  };
}

/**
 * Memory for the tables that could be handed to another process: a memory file, which takes up memory only
 * where tables are.
 */
export function shareTableMemory(size: number): SharedMemory {
  using file = createMemoryFile("viommu-tables", size);
  return mapMemoryFile(file, 0, size);
}
