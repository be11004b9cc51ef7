/** The options of a device, and what follows from them. */
import { describeFormat, type TableFormat, TableMemory } from "../../pagetable/mod.ts";
import { PAGE_SIZE, rangeText, sizeText } from "../address.ts";
import { ConfigSpace } from "./config_space.ts";
import type { EndpointRange } from "./endpoint_table.ts";
import type { LockableMemory } from "./guest_ram.ts";
import { Hardware } from "./hardware.ts";
import type { HostDevice } from "./host_devices.ts";
import type { ReservedRegion } from "./reserved_region.ts";
import {
  F_BYPASS_CONFIG,
  F_DOMAIN_RANGE,
  F_INPUT_RANGE,
  F_MAP_UNMAP,
  F_MMIO,
  F_PROBE,
} from "./wire.ts";

/** Features of the device type. */
const FEATURES = F_INPUT_RANGE | F_DOMAIN_RANGE | F_MAP_UNMAP | F_PROBE | F_MMIO | F_BYPASS_CONFIG;

/** The options of a device. */
export interface DeviceOptions {
  /** Which endpoints exist and in which format they are translated. */
  readonly endpoints: readonly EndpointRange[];
  /** Ranges that endpoints reserve. */
  readonly reserved: readonly ReservedRegion[];
  /** First and last page that the guest may map, inclusive, 0 to 2^52 - 1; what the formats span by default. */
  readonly inputRange?: { readonly firstPage: number; readonly lastPage: number };
  /**
   * Leaf sizes in bytes that the guest is told of and the tables use: of those that all formats have, the smallest and any
   * others; by default all of them.
   */
  readonly pageSizes?: readonly number[];
  /**
   * How many reserved ranges a device of the host may have that is passed through. It makes room for them in the answers
   * to PROBE, whose size cannot change later; by default there is room for as many as an endpoint can have of
   * `reserved`, at least one.
   */
  readonly maxHostRanges?: number;
  /** Whether unattached endpoints reach guest memory untranslated at power-on. */
  readonly bypass: boolean;
  /** How many domains there may be at once. */
  readonly maxDomains: number;
  /** How many mappings there may be at once, over all domains. */
  readonly maxMappings: number;
  /** Bytes that guest mappings may pin, rounded down to whole pages; no limit by default. */
  readonly maxPinned?: number;
  /** Tells the frames behind guest RAM: tables hold host-physical frames then, and guest-physical ones by default. */
  readonly hostMemory?: LockableMemory;
  /** Device features that are not offered, an OR of `F_…`; none by default. */
  readonly withoutFeatures?: number;
  /** Bytes of table memory, at least 4096, rounded down to whole pages. */
  readonly maxTableMemory: number;
  /** Memory for the tables, for example shared with another process; allocated by default. */
  readonly tableMemory?: ArrayBuffer;
  /** Physical frame of the first table page, 0 to 2^40 - 1. Each format must be able to address all table pages. */
  readonly tableBaseFrame: number;
}

/** What can be mapped. */
export interface DeviceLimits {
  /** First page that can be mapped. */
  readonly firstPage: number;
  /** Last page that can be mapped, inclusive. */
  readonly lastPage: number;
  /** Sizes of leaves in bytes, ascending. */
  readonly pageSizes: readonly number[];
}

/** What the config space and the checks of requests say of limits. */
export interface OfferedLimits {
  /** Bit n set: pages of 2^n bytes can be mapped. */
  readonly pageSizeMask: number;
  /** First page that can be mapped. */
  readonly inputFirstPage: number;
  /** Last page that can be mapped, inclusive. */
  readonly inputLastPage: number;
  /** Pages of the smallest mapping. */
  readonly granulePages: number;
}

/**
 * The limits as a driver is told of them: narrowed to what the host can translate for the devices that are passed
 * through, as far as that is known. A device that could map nothing then does not count.
 */
export function offeredLimits(
  limits: DeviceLimits,
  hosts: Iterable<HostDevice> = [],
): OfferedLimits {
  let { firstPage, lastPage } = limits;
  let granulePages = Math.min(...limits.pageSizes) / PAGE_SIZE;
  for (const host of hosts) {
    const known = host.limits?.();
    if (known === undefined) continue;
    if (known.firstPage > lastPage || known.lastPage < firstPage) continue;
    firstPage = Math.max(firstPage, known.firstPage);
    lastPage = Math.min(lastPage, known.lastPage);
    granulePages = Math.max(granulePages, known.granulePages);
  }
  const granule = granulePages * PAGE_SIZE;
  const larger = limits.pageSizes.filter((size) => size > granule);
  return {
    // Any multiple of a leaf can be mapped.
    pageSizeMask: larger.reduce((mask, size) => mask + size, granule),
    inputFirstPage: firstPage,
    inputLastPage: lastPage,
    granulePages,
  };
}

/**
 * What all formats among the endpoints can express, narrowed to what the options ask for.
 *
 * @throws {RangeError} If a format cannot express what the options ask for.
 */
export function limitsOf(formats: readonly string[], options: DeviceOptions): DeviceLimits {
  const described = formats.map((format) => describeFormat(format));
  const lastPage = Math.min(...described.map((format) => format.lastPage));
  const range = options.inputRange ?? { firstPage: 0, lastPage };
  if (range.lastPage > lastPage) {
    throw new RangeError(
      `Cannot take input range ${rangeText(range.firstPage, range.lastPage)}: ` +
        `${formats.join(" and ")} reach no further than ${rangeText(0, lastPage)}`,
    );
  }
  const lastTable = options.tableBaseFrame +
    (options.tableMemory?.byteLength ?? options.maxTableMemory) / PAGE_SIZE - 1;
  described.forEach((format, i) => {
    if (lastTable < 2 ** (format.outputBits - 12)) return;
    throw new RangeError(
      `Cannot keep tables at ${rangeText(options.tableBaseFrame, Math.floor(lastTable))}: ` +
        `${formats[i]} has ${format.outputBits} bits of physical addresses`,
    );
  });
  const sizes = described.map(leafSizes);
  const common = sizes[0].filter((size) => sizes.every((others) => others.includes(size)));
  const granule = Math.max(...sizes.map((others) => others[0]));
  const chosen = options.pageSizes ?? common;
  if (!chosen.includes(granule) || chosen.some((size) => !common.includes(size))) {
    throw new RangeError(
      `Cannot offer page sizes ${chosen.map(sizeText).join(",")}: they must include ` +
        `${sizeText(granule)} and be among ${common.map(sizeText).join(",")}`,
    );
  }
  return { ...range, pageSizes: chosen.toSorted((a, b) => a - b) };
}

/** The features that a device offers, an OR of `F_…`. */
export function offeredFeatures({ withoutFeatures = 0 }: DeviceOptions): number {
  return FEATURES & ~withoutFeatures;
}

/** Tables and units of a device. */
export function createHardware(options: DeviceOptions): Hardware {
  const { tableBaseFrame: baseFrame, tableMemory: buffer, maxTableMemory: bytes } = options;
  const memory = new TableMemory(
    buffer === undefined ? { baseFrame, bytes } : { baseFrame, buffer },
  );
  const { pageSizes } = options;
  return new Hardware(pageSizes === undefined ? { memory } : { memory, pageSizes });
}

/** The configuration space of a device at power-on. */
export function createConfigSpace(
  limits: DeviceLimits,
  probeSize: number,
  bypass: boolean,
): ConfigSpace {
  return new ConfigSpace({
    ...offeredLimits(limits),
    domainFirst: 0,
    domainLast: 0xffffffff,
    probeSize,
    bypass,
  });
}

/** Sizes in bytes of a format's leaves that are one entry each: a guest gains nothing from groups. */
function leafSizes(format: TableFormat): readonly number[] {
  return format.leaves.filter((leaf) => leaf.items === 1)
    .map((leaf) => PAGE_SIZE * 2 ** leaf.order);
}
