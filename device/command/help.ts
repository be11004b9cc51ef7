/** The text of `--help`, made of the definition of a command. */
import type { Command } from "./command.ts";
import type { OptionDefinition } from "./options.ts";

/** Columns of a terminal. */
const WIDTH = 79;
/** The column in which the meaning of an option begins, at most. */
const COLUMN_MAX = 27;

/** What a command's `--help` prints. */
export function helpText(command: Command): string {
  const { name, usage, actions, options, ending } = command;
  const parts = [usageText(name, usage), paragraphs(command.description)];
  if (actions !== undefined) {
    const rows = actions.list.map(({ word, takes, help }) => ({
      head: takes === undefined ? word : `${word} ${takes}`,
      help,
    }));
    parts.push(`${actions.title}:\n${table(rows)}`);
  }
  for (const { title, options: group, note } of options) {
    const text = `${title}:\n${table(group.flatMap(rowsOf))}`;
    parts.push(note === undefined ? text : `${text}\n\n${paragraphs(note)}`);
  }
  if (ending !== undefined) parts.push(ending.trim());
  return `${parts.join("\n\n")}\n`;
}

/** The lines that show how a command is typed. */
function usageText(name: string, usage: readonly string[]): string {
  return usage.map((form, i) =>
    `${i === 0 ? "Usage: " : "       "}viommu ${name}${form === "" ? "" : ` ${form}`}`
  ).join("\n");
}

/** A head and what it means. */
interface Row {
  readonly head: string;
  readonly help: string;
}

/** An option's rows, one for each form of its value. */
export function rowsOf(option: OptionDefinition): readonly Row[] {
  const { name, short, value, help, more = [] } = option;
  const spelling = `${short === undefined ? "" : `-${short}, `}--${name}`;
  return [{ value, help }, ...more].map((form) => ({
    head: form.value === undefined ? spelling : `${spelling} ${form.value}`,
    help: form.help,
  }));
}

/** Rows in two columns. */
function table(rows: readonly Row[]): string {
  const fitting = rows.map(({ head }) => head.length + 4).filter((width) => width <= COLUMN_MAX);
  const column = fitting.length === 0 ? COLUMN_MAX : Math.max(...fitting);
  return rows.map(({ head, help }) => {
    const lines = wrapped(help, WIDTH - column);
    const indent = " ".repeat(column);
    const heads = headLines(`  ${head}`);
    const fits = heads.length === 1 && heads[0].length + 2 <= column;
    const first = fits ? [heads[0].padEnd(column) + lines[0]] : [...heads, indent + lines[0]];
    return [...first, ...lines.slice(1).map((line) => indent + line)].join("\n");
  }).join("\n");
}

/** A head on as many lines as it takes, broken where something optional begins. */
function headLines(head: string): readonly string[] {
  if (head.length <= WIDTH) return [head];
  const at = head.lastIndexOf("[", WIDTH);
  if (at <= 0) return [head];
  return [head.slice(0, at), ...headLines(" ".repeat(COLUMN_MAX) + head.slice(at))];
}

/** Paragraphs, wrapped. */
function paragraphs(text: string): string {
  return text.trim().split("\n\n").map((paragraph) => wrapped(paragraph, WIDTH).join("\n"))
    .join("\n\n");
}

/** A text in lines of at most so many characters. */
export function wrapped(text: string, width: number): readonly string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(/\s+/).filter((each) => each !== "")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = "";
    }
    line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line];
}
