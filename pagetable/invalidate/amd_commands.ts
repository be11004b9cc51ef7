/** AMD IOMMU commands for what a gather holds (AMD IOMMU specification §2.4). */
import type { InvalidationGather } from "../invalidation.ts";
import { type CommandBuffer, coveringOrder, isBeyondRanges } from "./command_buffer.ts";
import { addressHigh, addressLow } from "../address.ts";

const COMPLETION_WAIT = 1 << 28;
const INVALIDATE_DEVICE = 2 << 28;
const INVALIDATE_PAGES = 3 << 28;
const INVALIDATE_ALL = 8 << 28;
const STORE = 1;
/** The address names a range, whose size its trailing ones encode. */
const SIZED = 1;
/** Cached tables are invalidated too, not only leaves. */
const TABLES = 2;
/** Largest range that is not everything, log2 of pages. */
const LARGEST_ORDER = 40;

/** What COMPLETION_WAIT stores, and where. */
export interface AmdWait {
  /** A multiple of 8 below 2^52. */
  readonly statusAddress: number;
  /** Stored as a 64-bit number. */
  readonly statusData: number;
}

/** Commands for changes of a page table that is cached under `domainId`. */
export function amdTableCommands(
  gather: InvalidationGather,
  domainId: number,
  wait: AmdWait,
  out: CommandBuffer,
): void {
  if (gather.rangeCount === 0 && !gather.everything) return;
  const tables = gather.tablesFreed ? TABLES : 0;
  if (isBeyondRanges(gather, LARGEST_ORDER)) {
    pushEverything(domainId, out);
  } else {
    for (let at = 0; at < gather.rangeCount; at++) {
      const order = coveringOrder(gather.firstPages[at], gather.lastPages[at]);
      const first = Math.floor(gather.firstPages[at] / 2 ** order) * 2 ** order;
      // A range of 2^order pages has order - 1 ones below a zero.
      const page = order === 0 ? first : first + 2 ** (order - 1) - 1;
      const sized = order === 0 ? 0 : SIZED;
      out.push(
        0,
        INVALIDATE_PAGES | domainId,
        addressLow(page) | tables | sized,
        addressHigh(page),
      );
    }
  }
  pushWait(wait, out);
}

/** Commands for changes of the device table. */
export function amdDeviceCommands(
  gather: InvalidationGather,
  wait: AmdWait,
  out: CommandBuffer,
): void {
  if (gather.everyDevice) {
    out.push(0, INVALIDATE_ALL, 0, 0);
    pushWait(wait, out);
    return;
  }
  if (gather.deviceCount === 0) return;
  for (let at = 0; at < gather.deviceCount; at++) {
    out.push(gather.endpoints[at], INVALIDATE_DEVICE, 0, 0);
    const domainId = gather.domainIds[at];
    if (domainId < 0) continue;
    pushEverything(domainId, out);
  }
  pushWait(wait, out);
}

function pushEverything(domainId: number, out: CommandBuffer): void {
  out.push(0, INVALIDATE_PAGES | domainId, 0xfffff000 | TABLES | SIZED, 0x7fffffff);
}

function pushWait(wait: AmdWait, out: CommandBuffer): void {
  const { statusAddress, statusData } = wait;
  const high = (statusAddress * 2 ** -32) | 0;
  out.push(
    statusAddress | STORE,
    COMPLETION_WAIT | high,
    statusData | 0,
    (statusData * 2 ** -32) | 0,
  );
}
