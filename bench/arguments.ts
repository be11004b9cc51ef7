/**
 * Arguments of the benches that are programs, read as those of the command line are.
 *
 * @module
 */
import { UsageError } from "../device/command/errors.ts";
import {
  type OptionDefinition,
  type OptionValues,
  parseOptions,
} from "../device/command/options.ts";

/**
 * The options that were given. `--help` prints the usage and ends the program; wrong arguments end it with one line and
 * exit code 2.
 */
export function benchArguments(usage: string, options: readonly OptionDefinition[]): OptionValues {
  const help: OptionDefinition = { name: "help", help: "prints this" };
  try {
    const { values, positionals } = parseOptions(Deno.args, [...options, help]);
    if (positionals.length > 0) {
      throw new UsageError(`Cannot take argument "${positionals[0]}": there are options only`);
    }
    if (values.help !== true) return values;
    console.log(`Usage: ${usage}`);
    Deno.exit(0);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(`${error.message} (usage: ${usage})`);
    Deno.exit(2);
  }
}
