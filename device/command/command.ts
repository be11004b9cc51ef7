/** What a command of the command line is, and how its arguments are read by its definition. */
import { closestName } from "./closest_name.ts";
import { UsageError } from "./errors.ts";
import { type OptionDefinition, type OptionValues, parseOptions } from "./options.ts";
import type { Streams } from "./streams.ts";

/** One command of `main.ts`. */
export interface Command {
  /** Its name, as typed. */
  readonly name: string;
  /** What it does, in one line of the overview. */
  readonly summary: string;
  /** How it is typed: what follows its name, one text a form. */
  readonly usage: readonly string[];
  /** What it does, in paragraphs. */
  readonly description: string;
  /** What it can be told to do, if it has to be told. */
  readonly actions?: ActionGroup;
  /** Its options, as `--help` groups them. */
  readonly options: readonly OptionGroup[];
  /** What `--help` says at the end: exit codes, examples. */
  readonly ending?: string;
  /** An argument that it needs besides options. */
  readonly operand?: string;
  /** An option that prints a text, beside which everything else is ignored. */
  readonly printing?: { readonly option: string; text(): string };
  /**
   * Runs it.
   *
   * @param given What was typed.
   * @param streams Where its input comes from and its output goes to.
   * @returns The exit code: 0 for success, 1 for a failure while running.
   * @throws {UsageError} If the arguments are wrong: exit code 2.
   */
  run(given: GivenArguments, streams: Streams): Promise<number> | number;
}

/** Options under a heading. */
export interface OptionGroup {
  /** The heading, without its colon. */
  readonly title: string;
  /** The options. */
  readonly options: readonly OptionDefinition[];
  /** What is to be said below them. */
  readonly note?: string;
}

/** Actions under a heading. */
export interface ActionGroup {
  /** The heading, without its colon. */
  readonly title: string;
  /** The actions. */
  readonly list: readonly ActionDefinition[];
}

/** One thing that a command can be told to do. */
export interface ActionDefinition {
  /** The word for it. */
  readonly word: string;
  /** What else belongs behind the word. */
  readonly takes?: string;
  /** What it does. */
  readonly help: string;
  /** An argument that it needs besides options. */
  readonly operand?: string;
}

/** What was typed behind the name of a command, and fits its definition. */
export interface GivenArguments {
  /** Values of the options that were given. */
  readonly values: OptionValues;
  /** The action; empty for a command that has none. */
  readonly action: string;
  /** The argument besides options; empty where none is needed. */
  readonly operand: string;
}

/** Every option of a command. */
export function optionsOf({ options }: Pick<Command, "options">): readonly OptionDefinition[] {
  return options.flatMap((group) => group.options);
}

/**
 * Reads the arguments of a command.
 *
 * @throws {UsageError} If they do not fit its definition.
 */
export function readArguments(command: Command, args: readonly string[]): GivenArguments {
  const { values, positionals } = parseOptions(args, optionsOf(command));
  const rest = [...positionals];
  const action = command.actions === undefined
    ? undefined
    : actionOf(command.actions, rest.shift());
  checkActions(command, values, action?.word);
  const operand = action?.operand ?? command.operand;
  const given = operand === undefined ? "" : rest.shift();
  if (given === undefined) {
    const whole = action === undefined ? command.name : `${command.name} ${action.word}`;
    throw new UsageError(`Cannot run ${whole} without its argument: ${operand} is missing`);
  }
  if (rest.length > 0) {
    const right = command.actions === undefined
      ? "this command has options only"
      : "one thing at a time";
    throw new UsageError(`Cannot take argument "${rest[0]}": ${right}`);
  }
  return { values, action: action?.word ?? "", operand: given };
}

/** The action that a word names. */
function actionOf({ list }: ActionGroup, typed: string | undefined): ActionDefinition {
  const found = list.find(({ word }) => word === typed);
  if (found !== undefined) return found;
  const words = list.map(({ word }) => word);
  const all = `it must be ${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
  if (typed === undefined) throw new UsageError(`Cannot run without an action: ${all}`);
  const meant = closestName(typed, words);
  throw new UsageError(
    `Cannot do ${typed}: ${meant === undefined ? all : `did you mean ${meant}?`}`,
  );
}

/** Fails if an option was given that belongs to other actions. */
function checkActions(command: Command, values: OptionValues, action: string | undefined): void {
  for (const { name, actions } of optionsOf(command)) {
    if (actions === undefined || action === undefined || actions.includes(action)) continue;
    if (values[name] === undefined) continue;
    const places = actions.map((each) => `"${command.name} ${each}"`).join(" or ");
    throw new UsageError(
      `Cannot take --${name} with "${command.name} ${action}": it belongs to ${places}`,
    );
  }
}
