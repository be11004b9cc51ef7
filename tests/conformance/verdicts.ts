/**
 * The verdicts on a device for every statement, and their table in `docs/conformance.md`.
 *
 * @module
 */
import { NotConfigurable, type OpenDevice } from "./subject.ts";
import { STATEMENTS } from "./statements.ts";

/** The document that holds the table. */
export const DOCUMENT: URL = new URL("../../docs/conformance.md", import.meta.url);

/** The heading in front of the table, which is the last thing in the document. */
const HEADING = "## Results";

/** A statement's verdict; `-` where the device cannot be configured as the statement needs it. */
export type Verdict = "yes" | "no" | "-";

/** Statements under way at once: most of the time goes into starting a device for each. */
const AT_ONCE = 2;

/** Tests a device with every statement; the verdicts by the statement's number. */
export async function verdictsOf(open: OpenDevice): Promise<ReadonlyMap<string, Verdict>> {
  const verdicts = new Map<string, Verdict>();
  // The calls share the iterator, so each statement is taken once.
  const left = STATEMENTS.values();
  async function takeAll(): Promise<void> {
    for (const statement of left) verdicts.set(statement.id, await verdictOf(open, statement));
  }
  await Promise.all(Array.from({ length: AT_ONCE }, takeAll));
  return verdicts;
}

async function verdictOf(open: OpenDevice, statement: typeof STATEMENTS[number]): Promise<Verdict> {
  const { configuration = {}, withoutNegotiating } = statement;
  try {
    const dut = await open(configuration, withoutNegotiating);
    try {
      await statement.run(dut);
      return "yes";
    } catch {
      return "no";
    } finally {
      await dut.close();
    }
  } catch (error) {
    if (error instanceof NotConfigurable) return "-";
    throw error;
  }
}

/** A column of the table. */
export interface Column {
  /** Its head. */
  readonly title: string;
  /** Verdicts by the statement's number. */
  readonly verdicts: ReadonlyMap<string, Verdict>;
}

/** The document with another table at its end; `text` stands between heading and table. */
export function withTable(document: string, text: string, columns: readonly Column[]): string {
  const rows = [
    ["", "what the suite checks", ...columns.map(({ title }) => title)],
    ...STATEMENTS.map(({ id, text }) => [
      id,
      text,
      ...columns.map(({ verdicts }) => verdicts.get(id)!),
    ]),
  ];
  const widths = rows[0].map((_, at) => Math.max(2, ...rows.map((row) => row[at].length)));
  const lines = rows.map((row) =>
    `| ${row.map((cell, at) => cell.padEnd(widths[at])).join(" | ")} |`
  );
  const rule = `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`;
  const at = document.indexOf(HEADING);
  const front = at < 0 ? `${document.trimEnd()}\n\n` : document.slice(0, at);
  return `${front}${HEADING}\n\n${text}\n\n${[lines[0], rule, ...lines.slice(1)].join("\n")}\n`;
}

/** The verdicts in a column of the document's table. */
export function readColumn(document: string, title: string): ReadonlyMap<string, Verdict> {
  const rows = document.slice(document.indexOf(HEADING)).split("\n")
    .filter((line) => line.startsWith("|"))
    .map((line) => line.slice(1, -1).split("|").map((cell) => cell.trim()));
  const at = rows[0]?.indexOf(title) ?? -1;
  if (at < 0) throw new Error(`Cannot find column "${title}" in ${DOCUMENT.pathname}`);
  return new Map(rows.slice(2).map((row) => [row[0], row[at] as Verdict]));
}
