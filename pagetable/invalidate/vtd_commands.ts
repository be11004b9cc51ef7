/** VT-d queued invalidation: descriptors for what a gather holds (VT-d §6.5.2, §6.5.3.3). */
import { type InvalidationGather, PASID_ENTRY } from "../invalidation.ts";
import { type CommandBuffer, coveringOrder, isBeyondRanges } from "./command_buffer.ts";
import { addressHigh, addressLow } from "../address.ts";

const CONTEXT = 0x1;
const IOTLB = 0x2;
const WAIT = 0x5;
const PASID_IOTLB = 0x6;
const PASID_CACHE = 0x7;
const GLOBAL = 1 << 4;
const DOMAIN = 2 << 4;
const ALL_IN_PASID = 2 << 4;
const PAGE = 3 << 4;
const DEVICE_SCOPE = 3 << 4;
const PASID_SELECTIVE = 1 << 4;
const PASID_GLOBAL = 3 << 4;
const DRAIN = 1 << 6 | 1 << 7;
/** Hint that only leaves changed. */
const LEAVES_ONLY = 1 << 6;
/** Store the status, and complete what was queued before first. */
const STORE_AND_FENCE = 1 << 5 | 1 << 6;

/** What invalidation descriptors of a unit depend on. */
export interface VtdQueueOptions {
  /** CAP.MAMV: log2 of the most pages of one page-selective descriptor; default 18. */
  readonly maxMask?: number;
  /** CAP.PSI: whether there are page-selective descriptors; default yes. */
  readonly pageSelective?: boolean;
  /** Scalable mode: PASID caches exist. Then the buffer's commands have 32 bytes. */
  readonly scalable?: boolean;
  /** Where a wait descriptor stores its data; a multiple of 4 below 2^53. */
  readonly statusAddress: number;
  /** What it stores. */
  readonly statusData: number;
}

/** Descriptors for changes of a second-stage table that is cached under `domainId`. */
export function vtdSecondStageCommands(
  gather: InvalidationGather,
  domainId: number,
  options: VtdQueueOptions,
  out: CommandBuffer,
): void {
  pushRanges(gather, IOTLB | DRAIN | domainId << 16, 0, DOMAIN, options, out);
}

/** Descriptors for changes of a first-stage table that is cached under `domainId` and `pasid`. */
export function vtdFirstStageCommands(
  gather: InvalidationGather,
  domainId: number,
  pasid: number,
  options: VtdQueueOptions,
  out: CommandBuffer,
): void {
  pushRanges(gather, PASID_IOTLB | domainId << 16, pasid, ALL_IN_PASID, options, out);
}

/** Descriptors for changes of root, context, PASID directory and PASID entries. */
export function vtdDeviceCommands(
  gather: InvalidationGather,
  options: VtdQueueOptions,
  out: CommandBuffer,
): void {
  const scalable = options.scalable ?? false;
  if (gather.everyDevice) {
    out.push(CONTEXT | GLOBAL, 0, 0, 0);
    pushWait(options, out);
    if (scalable) out.push(PASID_CACHE | PASID_GLOBAL, 0, 0, 0);
    out.push(IOTLB | GLOBAL | DRAIN, 0, 0, 0);
    pushWait(options, out);
    return;
  }
  if (gather.deviceCount === 0) return;
  for (let at = 0; at < gather.deviceCount; at++) {
    const domainId = Math.max(gather.domainIds[at], 0);
    if (gather.deviceKinds[at] === PASID_ENTRY) {
      out.push(PASID_CACHE | PASID_SELECTIVE | domainId << 16, gather.pasids[at], 0, 0);
    } else {
      out.push(CONTEXT | DEVICE_SCOPE | domainId << 16, gather.endpoints[at], 0, 0);
    }
  }
  // Translations go after the entries that lead to them, or they would be cached again.
  pushWait(options, out);
  for (let at = 0; at < gather.deviceCount; at++) {
    const domainId = gather.domainIds[at];
    if (domainId < 0) continue;
    if (gather.deviceKinds[at] === PASID_ENTRY) {
      out.push(PASID_IOTLB | ALL_IN_PASID | domainId << 16, gather.pasids[at], 0, 0);
    }
    out.push(IOTLB | DOMAIN | DRAIN | domainId << 16, 0, 0, 0);
  }
  pushWait(options, out);
}

function pushRanges(
  gather: InvalidationGather,
  head: number,
  pasid: number,
  whole: number,
  options: VtdQueueOptions,
  out: CommandBuffer,
): void {
  if (gather.rangeCount === 0 && !gather.everything) return;
  const maxMask = options.maxMask ?? 18;
  const hint = gather.tablesFreed ? 0 : LEAVES_ONLY;
  if (options.pageSelective === false || isBeyondRanges(gather, maxMask)) {
    out.push(head | whole, pasid, 0, 0);
  } else {
    for (let at = 0; at < gather.rangeCount; at++) {
      const order = coveringOrder(gather.firstPages[at], gather.lastPages[at]);
      const first = Math.floor(gather.firstPages[at] / 2 ** order) * 2 ** order;
      out.push(head | PAGE, pasid, addressLow(first) | hint | order, addressHigh(first));
    }
  }
  pushWait(options, out);
}

function pushWait(options: VtdQueueOptions, out: CommandBuffer): void {
  const address = options.statusAddress;
  out.push(WAIT | STORE_AND_FENCE, options.statusData, address | 0, (address * 2 ** -32) | 0);
}
