/** The page tables of random histories: plain ones, and real ones that the walker of their hardware checks. */
import type { PageTable } from "../../iommufd/mod.ts";
import { type Bench, makeBench, SUBJECTS } from "../pagetable/formats_under_test.ts";
import { PlainTable } from "./plain_table.ts";

/** A page table of a history. */
export type WorldTable = PlainTable | Bench;

/** Real page tables, reused from world to world, since each leaves them empty. */
const REAL = ["vtd-ss, 4 levels, scalable mode", "amdv1, 6 levels"];
export const HARDWARE: Bench[] = REAL.map(makeReal);

function makeReal(name: string): Bench {
  return makeBench(SUBJECTS.find((subject) => subject.name === name)!);
}

/** Replaces the real page tables of a failed history: what it has left in them must not reach the next one. */
export function replaceReal(used: readonly WorldTable[]): void {
  REAL.forEach((name, at) => {
    if (used.includes(HARDWARE[at])) HARDWARE[at] = makeReal(name);
  });
}

/** The page table as the engine knows it. */
export function asTable(table: WorldTable): PageTable {
  return table instanceof PlainTable ? table : table.table;
}

/** Pages mapped in a page table, of those that histories use. */
export function entriesOf(table: WorldTable): number {
  if (table instanceof PlainTable) return table.entries.size;
  let pages = 0;
  for (let page = 0; page <= 1000; page = table.table.runLast + 1) {
    if (table.table.runAt(page, 1000) >= 0) pages += table.table.runLast - page + 1;
  }
  return pages;
}
