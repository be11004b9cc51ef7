/**
 * What the commands on tables share: JSON on standard input, tables in it or in a raw image beside it.
 *
 * @module
 */
import { ImageReader, type TableReader } from "../../pagetable/mod.ts";
import { type Address, PAGE_SIZE, parseAddress } from "../address.ts";
import {
  CommandError,
  type OptionValues,
  parsedOption,
  textOption,
  UsageError,
} from "./command.ts";

/** Options that name a raw image, for `parseOptions`. */
export const IMAGE_OPTIONS = {
  "image": { type: "string" },
  "base": { type: "string" },
} as const;

/**
 * Reads one JSON value from standard input.
 *
 * @throws {CommandError} If it is none.
 */
export async function readJson(): Promise<unknown> {
  const text = await new Response(Deno.stdin.readable).text();
  try {
    return JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new CommandError(`Cannot read JSON from standard input: ${error.message}`);
  }
}

/**
 * Runs what takes input apart, whose complaints about the input are one line each.
 *
 * @throws {CommandError} If it complains.
 */
export function checked<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (error instanceof TypeError || error instanceof RangeError) {
      throw new CommandError(error.message);
    }
    throw error;
  }
}

/** The address of `--base`, which an image begins at. */
export function baseOption(values: OptionValues): Address | undefined {
  return parsedOption(values, "base", parseAddress, "a byte address such as 0x1000000");
}

/**
 * The raw image of `--image` and `--base`, if they are given.
 *
 * @throws {UsageError} If only one of them is.
 */
export async function imageReader(values: OptionValues): Promise<TableReader | undefined> {
  const file = textOption(values, "image");
  const base = baseOption(values);
  if (file === undefined && base === undefined) return undefined;
  if (file === undefined || base === undefined) {
    throw new UsageError("Cannot read an image without both --image FILE and --base ADDR");
  }
  const image = await Deno.readFile(file);
  return checked(() => new ImageReader(image, base.page * PAGE_SIZE + base.offset));
}

/** Prints a JSON value to standard output. */
export function printJson(value: unknown): void {
  console.log(JSON.stringify(value, null, 2));
}
