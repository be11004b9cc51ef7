/** What the commands on tables share: JSON on standard input, tables in it or in a raw image beside it. */
import { type Address, parseAddress } from "../address.ts";
import { readBounded } from "./bounded_input.ts";
import { CommandError, UsageError } from "./errors.ts";
import { type OptionDefinition, type OptionValues, parsedOption, textOption } from "./options.ts";
import type { Streams } from "./streams.ts";
import { TableImage } from "./table_image.ts";

/** Most bytes of JSON: as a text and as values it takes several times as much memory. */
const MOST_JSON = 256 * 2 ** 20;

/** Options that name a raw image. */
export const IMAGE_OPTIONS: readonly OptionDefinition[] = [
  { name: "image", value: "FILE", help: 'read the tables from a raw image instead of "mem"' },
  { name: "base", value: "ADDR", help: "the address that the image begins at" },
];

/**
 * Reads one JSON value from standard input.
 *
 * @param hint What to do instead of giving more than 256 MiB, for the message.
 * @throws {CommandError} If it is not JSON, or has more than 256 MiB.
 */
export async function readJson(
  { input }: Streams,
  hint = "give tables of that size as a raw image, with --image",
): Promise<unknown> {
  const bytes = await readBounded(input, MOST_JSON, "standard input", hint);
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new CommandError(`Cannot read JSON from standard input: ${error.message}`);
  }
}

/**
 * Runs a function that throws a TypeError or RangeError of one line for input that is wrong.
 *
 * @throws {CommandError} If it does.
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
 * The raw image of `--image` and `--base`, if they are given. Dispose of it.
 *
 * @throws {UsageError} If only one of them is.
 * @throws {CommandError} If the file cannot be read.
 */
export async function openImage(values: OptionValues): Promise<TableImage | undefined> {
  const file = textOption(values, "image");
  const base = baseOption(values);
  if (file === undefined && base === undefined) return undefined;
  if (file === undefined || base === undefined) {
    throw new UsageError("Cannot read an image without both --image FILE and --base ADDR");
  }
  return await TableImage.open(file, base);
}
