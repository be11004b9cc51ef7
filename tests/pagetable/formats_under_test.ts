/**
 * The formats and geometries that the common suite runs over.
 *
 * @module
 */
import {
  createPageTable,
  createUnit,
  type HardwareTable,
  type PageTableOptions,
  TableMemory,
  type TranslationUnit,
  type UnitOptions,
} from "../../pagetable/mod.ts";

/** One format with one geometry, and the unit that walks it. */
export interface Subject {
  readonly name: string;
  readonly format: string;
  readonly options: PageTableOptions;
  readonly unit: UnitOptions;
}

/** Everything the suite runs over. */
export const SUBJECTS: readonly Subject[] = [
  { name: "vtd-ss, 3 levels", format: "vtd-ss", options: { levels: 3 }, unit: {} },
  { name: "vtd-ss, 4 levels", format: "vtd-ss", options: { levels: 4 }, unit: {} },
  { name: "vtd-ss, 5 levels", format: "vtd-ss", options: { levels: 5 }, unit: {} },
  {
    name: "vtd-ss, 4 levels, 4K leaves only",
    format: "vtd-ss",
    options: { levels: 4, pageSizes: [4096] },
    unit: {},
  },
  {
    name: "vtd-ss, 48 of 57 bits, output 46",
    format: "vtd-ss",
    options: { levels: 5, inputBits: 48, outputBits: 46 },
    unit: { addressBits: 46, inputBits: 48 },
  },
];

/** The endpoint that subjects attach. */
export const ENDPOINT = 0x0318;

/** A table with its memory and a unit it is attached to. */
export interface Bench {
  readonly memory: TableMemory;
  readonly table: HardwareTable;
  readonly unit: TranslationUnit;
}

/** Makes a subject's table in a fresh arena and attaches it to a fresh unit. */
export function makeBench(subject: Subject, limitPages = 4096): Bench {
  const memory = new TableMemory({ baseFrame: 0x1234, bytes: 64 * 2 ** 20, limitPages });
  const table = createPageTable(subject.format, memory, subject.options);
  if (typeof table === "number") throw new Error(`Cannot make a table: errno ${table}`);
  const unit = createUnit(subject.format, memory, subject.unit);
  const errno = unit.attach(ENDPOINT, table);
  if (errno !== 0) throw new Error(`Cannot attach: errno ${errno}`);
  return { memory, table, unit };
}

/** Takes a bench apart; what then is still used in its memory leaked. */
export function leakedPages(bench: Bench): number {
  bench.unit.destroy();
  bench.table.destroy();
  return bench.memory.used;
}
