/** The plan of a `build`: formats, their options and those of the unit, with defaults. */
import type { PageTableOptions, UnitOptions } from "../create.ts";
import type { BuildInput, JsonEndpoint, JsonParameters } from "./types.ts";
import { hex, readGranule, readSmall, readWord } from "./values.ts";

/** Most bits of StreamIDs that a linear stream table is made for: it has 16 MiB then. */
const LINEAR_BITS = 18;

/** Names of the formats that the exchange form has. */
export const EXCHANGE_FORMATS = [
  "vtd-ss",
  "vtd-fs",
  "vtd-nested",
  "smmuv3-s1",
  "smmuv3-s2",
  "smmuv3-nested",
  "amdv1",
] as const;

/** A description with its parameters read and completed. */
export interface BuildPlan {
  /** The parameters with their defaults. */
  readonly parameters: JsonParameters;
  /** Format of the first or only stage. */
  readonly first: string;
  /** Format of the second stage; null without one. */
  readonly second: string | null;
  readonly firstOptions: PageTableOptions;
  readonly secondOptions: PageTableOptions;
  readonly unitOptions: UnitOptions;
}

/**
 * Reads and completes the parameters of a description whose endpoints are `endpoints`.
 *
 * @throws TypeError or RangeError, with a message of one line, for what is malformed or impossible.
 */
export function planOf(input: BuildInput, endpoints: readonly JsonEndpoint[]): BuildPlan {
  const format = readWord(input.format, "format", EXCHANGE_FORMATS);
  const base = input.base === undefined ? {} : { base: input.base };
  let lastSid = 0;
  let lastPasid = 0;
  for (const { sid, pasid } of endpoints) {
    lastSid = Math.max(lastSid, readSmall(sid, "sid"));
    if (pasid !== undefined) lastPasid = Math.max(lastPasid, readSmall(pasid, "pasid"));
  }
  if (format.startsWith("smmuv3")) return planArm(format, input, base, lastSid, lastPasid);
  const levels = input.levels === undefined ? 4 : readSmall(input.levels, "levels");
  if (format === "amdv1") {
    return {
      parameters: { format, levels, ...base },
      first: format,
      second: null,
      firstOptions: { levels },
      secondOptions: {},
      unitOptions: { deviceBits: bitsFor(lastSid, 7) },
    };
  }
  const usual = format === "vtd-ss" ? "legacy" : "scalable";
  const mode = readWord(input.mode ?? usual, "mode", ["legacy", "scalable"]);
  if (mode === "legacy" && format !== "vtd-ss") {
    throw new RangeError(`Cannot build ${format}: it needs mode scalable, not legacy`);
  }
  const nested = format === "vtd-nested";
  return {
    parameters: { format, mode, levels, ...base },
    first: nested ? "vtd-fs" : format,
    second: nested ? "vtd-ss" : null,
    firstOptions: { levels },
    secondOptions: { levels },
    unitOptions: { mode, pasidBits: bitsFor(lastPasid, 15) },
  };
}

function planArm(
  format: string,
  input: BuildInput,
  base: Pick<BuildInput, "base">,
  lastSid: number,
  lastPasid: number,
): BuildPlan {
  const granule = readGranule(input.granule);
  const oaBits = input.oaBits === undefined ? 44 : readSmall(input.oaBits, "oaBits");
  const usual = format === "smmuv3-s2" ? Math.min(48, oaBits) : 48;
  const iaBits = input.iaBits === undefined ? usual : readSmall(input.iaBits, "iaBits");
  const smallest = lastSid < 2 ** LINEAR_BITS ? "linear" : "2-level";
  const streamTable = readWord(input.streamTable ?? smallest, "streamTable", ["linear", "2-level"]);
  if (streamTable === "linear" && smallest !== "linear") {
    throw new RangeError(
      `Cannot build a linear streamTable for sid ${
        hex(lastSid)
      }: it has up to ${LINEAR_BITS} bits, 2-level 32`,
    );
  }
  const nested = format === "smmuv3-nested";
  const streamBits = streamTable === "linear" ? bitsFor(lastSid, 6) : bitsFor(lastSid, 16);
  const substreamBits = lastPasid === 0 ? 0 : bitsFor(lastPasid, 1);
  return {
    parameters: { format, granule: `${granule / 1024}K`, iaBits, oaBits, streamTable, ...base },
    first: nested ? "smmuv3-s1" : format,
    second: nested ? "smmuv3-s2" : null,
    firstOptions: { granule, inputBits: iaBits, outputBits: oaBits },
    secondOptions: { granule, inputBits: oaBits, outputBits: oaBits },
    unitOptions: { streamTable, streamBits, substreamBits },
  };
}

/** Bits that hold every number up to `last`, at least `least`. */
function bitsFor(last: number, least: number): number {
  return Math.max(least, last === 0 ? 0 : Math.floor(Math.log2(last)) + 1);
}
