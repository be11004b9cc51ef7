/**
 * Options of a command: how one is defined, and how arguments become values.
 *
 * A definition is the one place that a command's `--help`, its man page, shell completion and its parser are made of.
 */
import { closestName } from "./closest_name.ts";
import { UsageError } from "./errors.ts";

/** One option. */
export interface OptionDefinition {
  /** Its name, without dashes. */
  readonly name: string;
  /** Its name of one letter. */
  readonly short?: string;
  /** What stands for its value in help texts; words with bars between them are all that it may be. A switch has none. */
  readonly value?: string;
  /** What it means, as one paragraph. */
  readonly help: string;
  /** Values of other forms, with what each means. */
  readonly more?: readonly { readonly value: string; readonly help: string }[];
  /** Whether it may be given several times. */
  readonly repeats?: boolean;
  /** The actions of the command to which it belongs; without, all. */
  readonly actions?: readonly string[];
}

/** Option values by name, as typed: a text, a switch, or the texts of a repeated option. */
export type OptionValues = Readonly<Record<string, string | true | readonly string[] | undefined>>;

/** What was typed behind the name of a command. */
export interface ParsedArguments {
  /** Values of the options that were given. */
  readonly values: OptionValues;
  /** What was given besides options. */
  readonly positionals: readonly string[];
}

/**
 * Splits arguments into options and the rest. Of an option that is given again and does not repeat, the last counts.
 *
 * @throws {UsageError} On an unknown option, or one that lacks its value.
 */
export function parseOptions(
  args: readonly string[],
  options: readonly OptionDefinition[],
): ParsedArguments {
  const values: Record<string, string | true | string[]> = {};
  const positionals: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i];
    if (arg === "--") {
      positionals.push(...args.slice(i + 1));
      break;
    }
    if (!isOption(arg)) {
      positionals.push(arg);
      continue;
    }
    const [option, attached] = optionOf(arg, options);
    const { name, repeats } = option;
    if (option.value === undefined) {
      if (attached !== undefined) {
        throw new UsageError(`Cannot take ${arg}: --${name} has no value`);
      }
      values[name] = true;
      continue;
    }
    const value = attached ??
      (i + 1 < args.length && !isOption(args[i + 1]) ? args[++i] : undefined);
    if (!value) {
      const lack = value === undefined ? "without a value" : "with an empty value";
      throw new UsageError(`Cannot take --${name} ${lack}: it is --${name} ${option.value}`);
    }
    if (repeats === true) values[name] = [...textOptions(values, name), value];
    else values[name] = value;
  }
  return { values, positionals };
}

/** Whether an argument is an option: a dash alone and a negative number are not. */
function isOption(arg: string): boolean {
  return /^-[^0-9.]/.test(arg);
}

/** The option that an argument names, and the value that is attached to it. */
function optionOf(
  arg: string,
  options: readonly OptionDefinition[],
): readonly [option: OptionDefinition, attached: string | undefined] {
  const isLong = arg.startsWith("--");
  const equals = arg.indexOf("=");
  const end = isLong ? (equals < 0 ? arg.length : equals) : 2;
  const typed = arg.slice(isLong ? 2 : 1, end);
  const found = options.find(({ name, short }) => typed === (isLong ? name : short));
  if (found === undefined) {
    const names = options.map(({ name }) => name);
    const meant = isLong ? closestName(typed, names) : undefined;
    const right = meant !== undefined
      ? `did you mean --${meant}?`
      : names.length === 0
      ? "this command has none"
      : `the options are ${names.map((name) => `--${name}`).join(", ")}`;
    throw new UsageError(`Unknown option '${arg.slice(0, end)}': ${right}`);
  }
  if (end === arg.length) return [found, undefined];
  return [found, arg.slice(isLong || arg[end] === "=" ? end + 1 : end)];
}

/** The text of an option, or undefined where it was not given. */
export function textOption(values: OptionValues, name: string): string | undefined {
  const value = values[name];
  return typeof value === "string" ? value : undefined;
}

/** The texts of an option that can be given several times. */
export function textOptions(values: OptionValues, name: string): readonly string[] {
  const value = values[name];
  return value instanceof Array ? value : [];
}

/**
 * The value of an option, parsed.
 *
 * @param parse Returns undefined for a text that is no such value.
 * @param form What the text must look like, with an example, for the message.
 * @throws {UsageError} If the text cannot be parsed.
 */
export function parsedOption<T>(
  values: OptionValues,
  name: string,
  parse: (text: string) => T | undefined,
  form: string,
): T | undefined {
  const text = textOption(values, name);
  return text === undefined ? undefined : parseText(`--${name}`, text, parse, form);
}

/** Parses the text of one option, or says what it must look like. */
export function parseText<T>(
  option: string,
  text: string,
  parse: (text: string) => T | undefined,
  form: string,
): T {
  const value = parse(text);
  if (value === undefined) {
    throw new UsageError(`Cannot take ${option} ${text}: it must be ${form}`);
  }
  return value;
}

/** Parses a switch, `on` or `off`. */
export function parseSwitch(text: string): boolean | undefined {
  return text === "on" ? true : text === "off" ? false : undefined;
}
