/**
 * What a command of the command line is, and how its arguments are read.
 *
 * @module
 */
import { parseArgs, type ParseArgsOptionsConfig } from "node:util";
import { oneLine } from "../log.ts";
import { closestName } from "./closest_name.ts";
import type { Streams } from "./streams.ts";

/** One command of `main.ts`. */
export interface Command {
  /** Its name, as typed. */
  readonly name: string;
  /** What it does, in one line of the overview. */
  readonly summary: string;
  /** The text of `--help`. */
  readonly help: string;
  /** An option that prints a text, beside which everything else is ignored. */
  readonly printing?: { readonly option: string; text(): string };
  /**
   * Runs it.
   *
   * @param args The arguments behind its name, `--help` already dealt with.
   * @param streams Where its input comes from and its output goes to.
   * @returns The exit code: 0 for success, 1 for a failure while running.
   * @throws {UsageError} If the arguments are wrong: exit code 2.
   */
  run(args: readonly string[], streams: Streams): Promise<number> | number;
}

/** An error whose message is one line: control characters, which an argument may contain, are shown as `\u{…}`. */
class OneLineError extends Error {
  constructor(message: string) {
    super(oneLine(message));
  }
}

/** Wrong arguments. The message is one line that says what is wrong and what would be right. */
export class UsageError extends OneLineError {
  /** Name of the class. */
  override readonly name = "UsageError";
}

/** A failure while running that is no bug: exit code 1. The message is one line. */
export class CommandError extends OneLineError {
  /** Name of the class. */
  override readonly name = "CommandError";
}

/** Option values by name, as typed: a text, a switch, or the texts of a repeated option. */
export type OptionValues = Readonly<
  Record<string, string | boolean | (string | boolean)[] | undefined>
>;

/** What was typed behind the name of a command. */
export interface ParsedArguments {
  /** Values of the options that were given. */
  readonly values: OptionValues;
  /** What was given besides options. */
  readonly positionals: readonly string[];
}

/**
 * Splits arguments into options and the rest.
 *
 * @throws {UsageError} On an unknown option, or one that lacks its value.
 */
export function parseOptions(
  args: readonly string[],
  options: ParseArgsOptionsConfig,
): ParsedArguments {
  try {
    const { values, positionals } = parseArgs({ args: [...args], options, allowPositionals: true });
    return { values, positionals };
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    const message = error.message.split(/\.?\s*\n|\. /)[0];
    const names = Object.keys(options);
    const typed = /^Unknown option '--([^']+)'/.exec(message)?.[1] ?? "";
    const meant = closestName(typed, names);
    const right = meant === undefined
      ? `the options are ${names.map((name) => `--${name}`).join(", ")}`
      : `did you mean --${meant}?`;
    throw new UsageError(`${message}: ${right}`);
  }
}

/** The text of an option, or undefined where it was not given. */
export function textOption(values: OptionValues, name: string): string | undefined {
  const value = values[name];
  return typeof value === "string" ? value : undefined;
}

/** The texts of an option that can be given several times. */
export function textOptions(values: OptionValues, name: string): readonly string[] {
  const value = values[name];
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
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

/** Fails if there are arguments that no option took. */
export function refusePositionals(positionals: readonly string[]): void {
  if (positionals.length > 0) {
    throw new UsageError(`Cannot take argument "${positionals[0]}": this command has options only`);
  }
}
