/**
 * The first record of a recording: what the device was made with, as JSON.
 *
 * It is written with the input range filled in, which a device would derive from its formats: in a replay with other formats
 * the guest may map the same. Page sizes stay as they were given, since tables without that option also use groups of entries. What is read comes from outside and is checked like any other input;
 * that its parts fit each other is for the device to say.
 */
import { formatNames } from "../../pagetable/mod.ts";
import { LAST_PAGE } from "../address.ts";
import { type DeviceOptions, limitsOf } from "../iommu/device_options.ts";
import type { EndpointRange } from "../iommu/endpoint_table.ts";
import type { ReservedRegion } from "../iommu/reserved_region.ts";

/** Most bytes of the JSON. */
export const CONFIGURATION_MAX: number = 1 << 20;

/** What a recording says of the device and of itself. */
export interface RecordedConfiguration {
  /** Version of the program that recorded. */
  readonly program: string;
  /** When the recording began, in milliseconds since 1970. */
  readonly began: number;
  /** What the tables held: guest-physical frames, or the host's. */
  readonly frames: "guest" | "host";
  /** Whether DMA translations of endpoints are recorded. */
  readonly dma: boolean;
  /** What the device was made with; its limits are all there. */
  readonly device: DeviceOptions;
}

/** What a recording begins with besides the device's options. */
export type RecordingHead = Pick<RecordedConfiguration, "program" | "began" | "dma">;

/** The configuration as JSON. */
export function configurationText(head: RecordingHead, options: DeviceOptions): string {
  const formats = [...new Set(options.endpoints.map(({ format }) => format))];
  const { firstPage, lastPage } = limitsOf(formats, options);
  const {
    endpoints,
    reserved,
    pageSizes,
    maxHostRanges,
    bypass,
    maxDomains,
    maxMappings,
    maxPinned,
    withoutFeatures,
  } = options;
  const { maxTableMemory, tableBaseFrame, hostMemory } = options;
  return JSON.stringify({
    program: head.program,
    began: head.began,
    frames: hostMemory === undefined ? "guest" : "host",
    dma: head.dma,
    device: {
      endpoints,
      reserved,
      inputRange: { firstPage, lastPage },
      pageSizes,
      maxHostRanges,
      bypass,
      maxDomains,
      maxMappings,
      maxPinned,
      withoutFeatures,
      maxTableMemory,
      tableBaseFrame,
    },
  });
}

/** Reads the JSON. Returns one clause that says what is wrong, if it is no configuration. */
export function readConfiguration(text: string): RecordedConfiguration | string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return "its configuration is no JSON";
    throw error;
  }
  const problem = new Problem();
  const all = problem.object(value, "its configuration");
  const device = problem.object(all.device, "device");
  const range = problem.object(device.inputRange, "device.inputRange");
  const count = 2 ** 32;
  const configuration: RecordedConfiguration = {
    program: problem.text(all.program, "program"),
    began: problem.number(all.began, Number.MAX_SAFE_INTEGER, "began"),
    frames: problem.oneOf(all.frames, ["guest", "host"], "frames"),
    dma: problem.flag(all.dma, "dma"),
    device: {
      endpoints: problem.list(device.endpoints, "device.endpoints", readRange),
      reserved: problem.list(device.reserved, "device.reserved", readReserved),
      inputRange: {
        firstPage: problem.number(range.firstPage, LAST_PAGE, "device.inputRange.firstPage"),
        lastPage: problem.number(range.lastPage, LAST_PAGE, "device.inputRange.lastPage"),
      },
      ...(device.pageSizes === undefined ? {} : {
        pageSizes: problem.list(
          device.pageSizes,
          "device.pageSizes",
          (size, name) => problem.number(size, LAST_PAGE, name),
        ),
      }),
      ...(device.maxHostRanges === undefined ? {} : {
        maxHostRanges: problem.number(device.maxHostRanges, 2 ** 16, "device.maxHostRanges"),
      }),
      bypass: problem.flag(device.bypass, "device.bypass"),
      maxDomains: problem.number(device.maxDomains, count, "device.maxDomains"),
      maxMappings: problem.number(device.maxMappings, count, "device.maxMappings"),
      ...(device.maxPinned === undefined ? {} : {
        maxPinned: problem.number(
          device.maxPinned,
          Number.MAX_SAFE_INTEGER,
          "device.maxPinned",
        ),
      }),
      ...(device.withoutFeatures === undefined ? {} : {
        withoutFeatures: problem.number(device.withoutFeatures, count, "device.withoutFeatures"),
      }),
      maxTableMemory: problem.number(device.maxTableMemory, 2 ** 40, "device.maxTableMemory"),
      tableBaseFrame: problem.number(device.tableBaseFrame, 2 ** 40 - 1, "device.tableBaseFrame"),
    },
  };
  return problem.found ?? configuration;

  function readRange(item: unknown, name: string): EndpointRange {
    const { first, last, format } = problem.object(item, name);
    return {
      first: problem.number(first, count - 1, `${name}.first`),
      last: problem.number(last, count - 1, `${name}.last`),
      format: problem.oneOf(format, formatNames(), `${name}.format`),
    };
  }

  function readReserved(item: unknown, name: string): ReservedRegion {
    const { firstPage, lastPage, subtype, firstEndpoint, lastEndpoint } = problem.object(
      item,
      name,
    );
    const region = {
      firstPage: problem.number(firstPage, LAST_PAGE, `${name}.firstPage`),
      lastPage: problem.number(lastPage, LAST_PAGE, `${name}.lastPage`),
      subtype: problem.number(subtype, 1, `${name}.subtype`),
    };
    if (region.lastPage < region.firstPage) problem.refuse(name);
    if (firstEndpoint === undefined && lastEndpoint === undefined) return region;
    return {
      ...region,
      firstEndpoint: problem.number(firstEndpoint, count - 1, `${name}.firstEndpoint`),
      lastEndpoint: problem.number(lastEndpoint, count - 1, `${name}.lastEndpoint`),
    };
  }
}

/** Takes JSON apart, and remembers the first thing that is wrong; what is returned then does not matter. */
class Problem {
  /** What is wrong, in a clause. */
  found: string | undefined;

  refuse(name: string): void {
    this.found ??= `its configuration has no valid ${name}`;
  }

  object(value: unknown, name: string): Readonly<Record<string, unknown>> {
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      return value as Record<string, unknown>;
    }
    this.refuse(name);
    return {};
  }

  list<T>(value: unknown, name: string, read: (item: unknown, name: string) => T): readonly T[] {
    if (Array.isArray(value)) return value.map((item, i) => read(item, `${name}[${i}]`));
    this.refuse(name);
    return [];
  }

  number(value: unknown, most: number, name: string): number {
    if (typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= most) {
      return value;
    }
    this.refuse(name);
    return 0;
  }

  text(value: unknown, name: string): string {
    if (typeof value === "string" && /^[\w.+-]{1,64}$/.test(value)) return value;
    this.refuse(name);
    return "";
  }

  flag(value: unknown, name: string): boolean {
    if (typeof value !== "boolean") this.refuse(name);
    return value === true;
  }

  oneOf<T extends string>(value: unknown, words: readonly T[], name: string): T {
    const found = words.find((word) => word === value);
    if (found === undefined) this.refuse(name);
    return found ?? words[0];
  }
}
