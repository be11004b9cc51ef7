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
  {
    name: "vtd-ss, 4 levels, scalable mode",
    format: "vtd-ss",
    options: { levels: 4, dirtyTracking: true },
    unit: { mode: "scalable" },
  },
  { name: "vtd-fs, 4 levels", format: "vtd-fs", options: { levels: 4 }, unit: {} },
  { name: "vtd-fs, 5 levels", format: "vtd-fs", options: { levels: 5 }, unit: {} },
  ...armSubjects(),
  { name: "amdv1, 2 levels", format: "amdv1", options: { levels: 2 }, unit: {} },
  { name: "amdv1, 3 levels", format: "amdv1", options: { levels: 3 }, unit: { deviceBits: 10 } },
  { name: "amdv1, 4 levels", format: "amdv1", options: { levels: 4 }, unit: {} },
  {
    name: "amdv1, 5 levels, plain leaves",
    format: "amdv1",
    options: { levels: 5, groups: false },
    unit: {},
  },
  {
    name: "amdv1, 6 levels",
    format: "amdv1",
    options: { levels: 6, dirtyTracking: true },
    unit: {},
  },
];

/** Both stages, all granules, and input sizes that start at every level, concatenated or not. */
function armSubjects(): Subject[] {
  const geometries: readonly (readonly [string, number, number, number, PageTableOptions])[] = [
    ["smmuv3-s1", 4, 32, 44, { groups: false }],
    ["smmuv3-s1", 4, 39, 40, {}],
    ["smmuv3-s1", 4, 48, 48, { dirtyTracking: true }],
    ["smmuv3-s1", 16, 36, 44, {}],
    ["smmuv3-s1", 16, 47, 48, {}],
    ["smmuv3-s1", 16, 48, 48, {}],
    ["smmuv3-s1", 64, 42, 44, {}],
    ["smmuv3-s1", 64, 48, 48, {}],
    ["smmuv3-s1", 64, 52, 52, {}],
    ["smmuv3-s2", 4, 32, 44, {}],
    ["smmuv3-s2", 4, 39, 44, {}],
    ["smmuv3-s2", 4, 40, 40, {}],
    ["smmuv3-s2", 4, 42, 42, {}],
    ["smmuv3-s2", 4, 44, 44, { groups: false }],
    ["smmuv3-s2", 4, 48, 48, { dirtyTracking: true }],
    ["smmuv3-s2", 16, 40, 40, {}],
    ["smmuv3-s2", 16, 48, 48, {}],
    ["smmuv3-s2", 64, 42, 44, {}],
    ["smmuv3-s2", 64, 46, 48, {}],
    ["smmuv3-s2", 64, 52, 52, {}],
  ];
  return geometries.map(([format, kib, inputBits, outputBits, more], at) => ({
    name: `${format}, ${kib}K, ${inputBits} to ${outputBits} bits`,
    format,
    options: { granule: kib * 1024, inputBits, outputBits, ...more },
    unit: {
      streamTable: at % 2 === 0 ? "linear" : "2-level",
      capabilities: { addressBits: outputBits },
    },
  }));
}

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
