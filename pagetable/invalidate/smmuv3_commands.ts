/** SMMUv3 commands for what a gather holds (SMMU §4.3, §4.4, §4.7). Each batch ends with CMD_SYNC. */
import {
  DEVICE_ENTRY,
  type InvalidationGather,
  PASID_DIRECTORY,
  PASID_ENTRY,
} from "../invalidation.ts";
import type { CommandBuffer } from "./command_buffer.ts";
import { PAGE_SHIFT } from "../page_table.ts";
import { addressHigh, addressLow } from "../address.ts";

const CFGI_STE = 0x03;
const CFGI_ALL = 0x04;
const CFGI_CD = 0x05;
const TLBI_NH_ALL = 0x10;
const TLBI_NH_ASID = 0x11;
const TLBI_NH_VA = 0x12;
const TLBI_S12_VMALL = 0x28;
const TLBI_S2_IPA = 0x2a;
const TLBI_NSNH_ALL = 0x30;
const SYNC = 0x46;
const LEAF = 1;
const EVERY_STREAM = 31;
/** From this many commands on, invalidating the whole ASID or VMID is cheaper. */
const MANY = 512;
/** Most units of 2^SCALE granules that one command counts: NUM has 5 bits and counts from 1. */
const NUM_LIMIT = 32;
/** Largest SCALE: 5 bits where IDR5.DS is 0. */
const SCALE_LIMIT = 31;

/** What invalidation commands of an SMMU depend on. */
export interface SmmuQueueOptions {
  /** Log2 of the granule in bytes: 12, 14 or 16. */
  readonly granuleBits: number;
  /** IDR3.RIL: whether one command can invalidate a range; default no. */
  readonly ranges?: boolean;
}

/** Commands for changes of a stage-1 table that is cached under `asid`, below stage 2 `vmid` or 0. */
export function smmuStageOneCommands(
  gather: InvalidationGather,
  asid: number,
  vmid: number,
  options: SmmuQueueOptions,
  out: CommandBuffer,
): void {
  const tag = vmid | asid << 16;
  pushRanges(gather, TLBI_NH_VA, TLBI_NH_ASID, tag, options, out, false);
}

/**
 * Commands for changes of a stage-2 table that is cached under `vmid`. With `nested` streams, combined
 * translations of both stages are invalidated too, because TLBI_S2_IPA leaves them.
 */
export function smmuStageTwoCommands(
  gather: InvalidationGather,
  vmid: number,
  nested: boolean,
  options: SmmuQueueOptions,
  out: CommandBuffer,
): void {
  pushRanges(gather, TLBI_S2_IPA, TLBI_S12_VMALL, vmid, options, out, nested);
}

/** Commands for changes of stream table, STEs, CD tables and CDs. */
export function smmuDeviceCommands(gather: InvalidationGather, out: CommandBuffer): void {
  if (gather.everyDevice) {
    out.push(CFGI_ALL, 0, EVERY_STREAM, 0);
    out.push(SYNC, 0, 0, 0);
    out.push(TLBI_NSNH_ALL, 0, 0, 0);
    out.push(SYNC, 0, 0, 0);
    return;
  }
  if (gather.deviceCount === 0) return;
  let tagged = false;
  for (let at = 0; at < gather.deviceCount; at++) {
    const kind = gather.deviceKinds[at];
    const stream = gather.endpoints[at];
    const ofContext = kind === PASID_ENTRY || kind === PASID_DIRECTORY;
    const leaf = kind === PASID_ENTRY || kind === DEVICE_ENTRY ? LEAF : 0;
    const substream = ofContext ? gather.pasids[at] << 12 : 0;
    out.push((ofContext ? CFGI_CD : CFGI_STE) | substream, stream, leaf, 0);
    tagged = tagged || gather.domainIds[at] > 0;
  }
  out.push(SYNC, 0, 0, 0);
  if (!tagged) return;
  for (let at = 0; at < gather.deviceCount; at++) {
    const id = gather.domainIds[at];
    if (id <= 0) continue;
    const tag = gather.stageTwoIds[at] | id << 16;
    if (gather.deviceKinds[at] === PASID_ENTRY) out.push(TLBI_NH_ASID, tag, 0, 0);
    else out.push(TLBI_S12_VMALL, id, 0, 0);
  }
  out.push(SYNC, 0, 0, 0);
}

function pushRanges(
  gather: InvalidationGather,
  byAddress: number,
  byTag: number,
  tag: number,
  options: SmmuQueueOptions,
  out: CommandBuffer,
  nested: boolean,
): void {
  if (gather.rangeCount === 0 && !gather.everything) return;
  let commands = 0;
  for (let at = 0; at < gather.rangeCount && commands < MANY; at++) {
    commands += commandsFor(gather.firstPages[at], gather.lastPages[at], options);
  }
  if (gather.everything || commands >= MANY) {
    out.push(byTag, tag, 0, 0);
  } else {
    const leaf = gather.tablesFreed ? 0 : LEAF;
    for (let at = 0; at < gather.rangeCount; at++) {
      pushRange(gather.firstPages[at], gather.lastPages[at], byAddress, tag, leaf, options, out);
    }
    if (nested) out.push(TLBI_NH_ALL, tag, 0, 0);
  }
  out.push(SYNC, 0, 0, 0);
}

/** Commands that {@linkcode pushRange} needs for one range; at least {@linkcode MANY} if it needs so many. */
function commandsFor(firstPage: number, lastPage: number, options: SmmuQueueOptions): number {
  const pages = 2 ** (options.granuleBits - PAGE_SHIFT);
  let left = Math.floor(lastPage / pages) - Math.floor(firstPage / pages) + 1;
  if (options.ranges !== true) return left;
  let commands = 0;
  while (left > 0 && commands < MANY) {
    const scale = scaleOf(left);
    left -= countOf(left, scale) * 2 ** scale;
    commands++;
  }
  return commands;
}

/** SCALE of the next piece of `left` granules: how often two divides them. */
function scaleOf(left: number): number {
  let scale = 0;
  for (let units = left; units % 2 === 0 && scale < SCALE_LIMIT; units /= 2) scale++;
  return scale;
}

/** NUM + 1 of the next piece of `left` granules: what is left of the units beyond multiples of 32. */
function countOf(left: number, scale: number): number {
  const units = left / 2 ** scale;
  return units <= NUM_LIMIT ? units : units % NUM_LIMIT || NUM_LIMIT;
}

/**
 * One range, as single granules or as few pieces of (NUM + 1) * 2^SCALE granules. A piece of one granule
 * is no range: with TG set, NUM, SCALE and TTL must not all be 0 (SMMU §4.4.1.1, CERROR_ILL).
 */
function pushRange(
  firstPage: number,
  lastPage: number,
  opcode: number,
  tag: number,
  leaf: number,
  options: SmmuQueueOptions,
  out: CommandBuffer,
): void {
  const pages = 2 ** (options.granuleBits - PAGE_SHIFT);
  let left = Math.floor(lastPage / pages) - Math.floor(firstPage / pages) + 1;
  let page = firstPage - (firstPage % pages);
  while (left > 0) {
    const scale = options.ranges === true ? scaleOf(left) : 0;
    const count = options.ranges === true ? countOf(left, scale) : 1;
    const done = count * 2 ** scale;
    // TG: 1, 2, 3 for 4, 16, 64 KiB; 0 makes it a command for one granule.
    const translationGranule = done === 1 ? 0 : options.granuleBits / 2 - 5;
    out.push(
      opcode | (count - 1) << 12 | scale << 20,
      tag,
      addressLow(page) | translationGranule << 10 | leaf,
      addressHigh(page),
    );
    left -= done;
    page += done * pages;
  }
}
