/** The options of `serve` that describe a device, from their texts to {@linkcode DeviceOptions}. */
import { formatNames } from "../../pagetable/mod.ts";
import {
  type AddressRange,
  parseAddressRange,
  parseEndpointRange,
  parseNumber,
  parseSize,
} from "../address.ts";
import type { EndpointRange } from "../iommu/endpoint_table.ts";
import type { DeviceOptions } from "../iommu/iommu_device.ts";
import { type ReservedRegion, RESV_MEM_MSI, RESV_MEM_RESERVED } from "../iommu/reserved_region.ts";
import { UsageError } from "./errors.ts";
import { oneOf, optional, parseParts, type TextForm } from "./option_parts.ts";
import {
  type OptionDefinition,
  type OptionValues,
  parsedOption,
  parseSwitch,
  textOption,
  textOptions,
} from "./options.ts";

/** Format of endpoints for which none is named. */
const DEFAULT_FORMAT = "vtd-ss";
/** Every PCI endpoint of segment 0. */
const DEFAULT_ENDPOINTS: EndpointRange = { first: 0, last: 0xffff, format: DEFAULT_FORMAT };
/** Where x86 devices write their interrupts to. */
const DEFAULT_MSI_REGION = { firstPage: 0xfee00, lastPage: 0xfeeff };
/**
 * First address that the tables are said to live at: 8 TiB, above the RAM of any guest we know of, and within the
 * 44 bits of the narrowest format.
 */
const TABLE_BASE_FRAME = 2 ** 31;

/** Addresses of a range. */
const PAGE_RANGE: TextForm<AddressRange> = {
  form: "two page-aligned addresses, both included, such as 0x8000000-0x80fffff",
  read: parseAddressRange,
};
/** Endpoints of a range. */
const ENDPOINT_RANGE: TextForm<readonly [first: number, last: number]> = {
  form: "an endpoint or a range of them, such as 00:03.0 or 0-0xffff",
  read: parseEndpointRange,
};
const ENDPOINT_OPTION = {
  name: "--endpoint",
  head: ENDPOINT_RANGE,
  parts: { format: optional(oneOf(...formatNames()), DEFAULT_FORMAT) },
};
const RESERVED_OPTION = {
  name: "--resv",
  head: PAGE_RANGE,
  parts: {
    endpoint: optional(ENDPOINT_RANGE, undefined),
    type: optional(oneOf("reserved", "msi"), "reserved"),
  },
};

/** How they are given. */
export const DEVICE_OPTIONS: readonly OptionDefinition[] = [{
  name: "endpoint",
  value: "FIRST[-LAST][,format=FORMAT]",
  help:
    "endpoints that exist, by number or PCI address, and the tables that translate for them; can be repeated, a " +
    `later one decides where they overlap (default 0-0xffff,format=${DEFAULT_FORMAT}); formats: ${
      formatNames().join(", ")
    }`,
  repeats: true,
}, {
  name: "input-range",
  value: "A-B",
  help:
    "I/O virtual addresses that the guest may map, both included (default: what the formats span)",
}, {
  name: "page-sizes",
  value: "4K,2M,1G",
  help: "leaf sizes (default: those of the formats)",
}, {
  name: "bypass",
  value: "on|off",
  help: "whether unattached endpoints reach memory at power-on (default on)",
}, {
  name: "msi-region",
  value: "A-B|none",
  help: "where endpoints write interrupts to, never mapped (default 0xfee00000-0xfeefffff)",
}, {
  name: "resv",
  value: "A-B[,endpoint=FIRST[-LAST]][,type=reserved|msi]",
  help: "a further range that endpoints reserve; can be repeated",
  repeats: true,
}, {
  name: "max-domains",
  value: "N",
  help: "domains there may be (default 4096)",
}, {
  name: "max-mappings",
  value: "N",
  help: "mappings there may be (default 4194304)",
}, {
  name: "max-table-memory",
  value: "SIZE",
  help: "memory of all tables (default 1G)",
}, {
  name: "max-pinned",
  value: "SIZE",
  help: "guest memory that mappings may hold (default all)",
}];

/**
 * Reads the options of a device.
 *
 * @throws {UsageError} If one of them is wrong.
 */
export function parseDeviceOptions(values: OptionValues): DeviceOptions {
  const given = textOptions(values, "endpoint").map(parseEndpointOption);
  const endpoints = given.length > 0 ? given : [DEFAULT_ENDPOINTS];
  const inputRange = parsedOption(values, "input-range", PAGE_RANGE.read, PAGE_RANGE.form);
  const pageSizes = parsedOption(values, "page-sizes", parseSizes, "sizes such as 4K,2M,1G");
  const maxPinned = parsedOption(values, "max-pinned", parseSize, "a size such as 4G");
  return {
    endpoints,
    reserved: [...msiRegion(values), ...textOptions(values, "resv").map(parseReserved)],
    ...(inputRange === undefined ? {} : { inputRange }),
    ...(pageSizes === undefined ? {} : { pageSizes }),
    ...(maxPinned === undefined ? {} : { maxPinned }),
    bypass: parsedOption(values, "bypass", parseSwitch, "on or off") ?? true,
    maxDomains: countOption(values, "max-domains", 4096),
    maxMappings: countOption(values, "max-mappings", 2 ** 22),
    maxTableMemory: parsedOption(values, "max-table-memory", parseSize, "a size such as 1G") ??
      2 ** 30,
    tableBaseFrame: TABLE_BASE_FRAME,
  };
}

/** `FIRST[-LAST][,format=FORMAT]`. */
function parseEndpointOption(text: string): EndpointRange {
  const [[first, last], { format }] = parseParts(ENDPOINT_OPTION, text);
  return { first, last, format };
}

/** `A-B[,endpoint=FIRST[-LAST]][,type=reserved|msi]`. */
function parseReserved(text: string): ReservedRegion {
  const [region, { endpoint, type }] = parseParts(RESERVED_OPTION, text);
  const subtype = type === "msi" ? RESV_MEM_MSI : RESV_MEM_RESERVED;
  if (endpoint === undefined) return { ...region, subtype };
  const [firstEndpoint, lastEndpoint] = endpoint;
  return { ...region, subtype, firstEndpoint, lastEndpoint };
}

/** The region of `--msi-region`, if there is one. */
function msiRegion(values: OptionValues): readonly ReservedRegion[] {
  if (textOption(values, "msi-region") === "none") return [];
  const form = "two page-aligned addresses such as 0xfee00000-0xfeefffff, or none";
  const region = parsedOption(values, "msi-region", parseAddressRange, form) ?? DEFAULT_MSI_REGION;
  return [{ ...region, subtype: RESV_MEM_MSI }];
}

/** `4K,2M,1G` as bytes. */
function parseSizes(text: string): readonly number[] | undefined {
  const sizes = text.split(",").map(parseSize);
  return sizes.some((size) => size === undefined || !Number.isInteger(Math.log2(size)))
    ? undefined
    : sizes.filter((size) => size !== undefined);
}

/** A count of at least 1. */
function countOption(values: OptionValues, name: string, standard: number): number {
  const count = parsedOption(
    values,
    name,
    (text) => parseNumber(text, 2 ** 32),
    "a number such as 1000",
  );
  if (count === 0) throw new UsageError(`Cannot take --${name} 0: it must be at least 1`);
  return count ?? standard;
}
