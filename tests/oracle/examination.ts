/**
 * The examination that every format goes through: random mappings by our builder, in front of one of QEMU's
 * IOMMUs, with our walker giving the expected answers.
 *
 * Four devices take part: two translated by tables of their own, one in bypass, one never attached.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import {
  createPageTable,
  createUnit,
  type HardwareTable,
  OK,
  type PageTableOptions,
  READ,
  TableMemory,
  type TranslationUnit,
  type UnitOptions,
  WalkResult,
  WRITE,
} from "../../pagetable/mod.ts";
import type { Qemu } from "../guest/lab/mod.ts";
import { Random, seed } from "../guest/random.ts";
import { isLong } from "../long_mode.ts";
import { Agreement } from "./agreement.ts";
import { askCorrupted, type Corruption } from "./corruption.ts";
import { Edu, eduArguments } from "./edu.ts";
import { type Judge, TableLoader } from "./judge.ts";
import type { ConfigSpace } from "./pci.ts";
import { Qtest } from "./qtest.ts";
import { type FrameRange, type MadeMapping, mapRandomly } from "./random_mappings.ts";

/** A machine of QEMU's with an IOMMU. */
export interface Board {
  /** QEMU arguments. */
  readonly args: readonly string[];
  /** Where the tables are, in frames and bytes. */
  readonly tables: { readonly baseFrame: number; readonly bytes: number };
  /** RAM that mappings may lead to. */
  readonly ram: readonly FrameRange[];
  /** A page of RAM for the devices' data, at a multiple of 64 KiB. */
  readonly scratch: number;
  /** Where devices' registers are put. */
  readonly registers: number;
  config(machine: Qtest): ConfigSpace;
  judge(machine: Qtest): Judge;
}

/** What is examined on a board. */
export interface Examination {
  readonly board: Board;
  readonly format: string;
  readonly table?: PageTableOptions;
  /** A second stage behind each table, by format and options. */
  readonly second?: { readonly format: string; readonly table: PageTableOptions };
  readonly unit?: UnitOptions;
  /** Protections to map with; default all four. */
  readonly protections?: readonly number[];
  /** Pages to map; default what the table can translate. */
  readonly pages?: FrameRange;
  /** See `AgreementOptions`. */
  readonly codeOf?: (result: WalkResult, access: "r" | "w") => number;
  /** Pages beyond the tables to ask about; default the first ones above `inputBits`. */
  readonly beyond?: readonly number[];
  /** Asks about tables with wrong bits too; which wrong bits to leave out. */
  readonly wrongBits?: (corruption: Corruption) => boolean;
  /** Whether an endpoint that was never attached is to be asked about. */
  readonly stranger?: boolean;
}

/** PCI slots of the four devices. */
const SLOTS = [4, 5, 6, 7];

/** Whether to run every variant, and with more mappings. */

/** Mappings in each of the two domains. */
const MAPPINGS = isLong ? 500 : 60;

/** Wrong bits to try, one at a time. */
const CORRUPTIONS = isLong ? 2000 : 60;

/** Examinations by name: the variants that every run makes, and those that only a full run adds. */
export function variants<T>(
  always: Readonly<Record<string, T>>,
  full: Readonly<Record<string, T>>,
): Readonly<Record<string, T>> {
  return isLong ? { ...always, ...full } : always;
}

/** A page table, or an error that says that there is none. */
export function madeTable(table: HardwareTable | number): HardwareTable {
  if (typeof table === "number") throw new Error(`Cannot make a page table: errno ${table}`);
  return table;
}

/** The smallest range that a table can map around the scratch page. */
export function scratchRange(table: HardwareTable, board: Board): FrameRange {
  return { first: board.scratch, last: board.scratch + 2 ** table.leafOrders[0] - 1 };
}

/** Opens the `edu` devices of a board's slots. */
export async function openEdus(
  machine: Qtest,
  board: Board,
  slots: readonly number[],
): Promise<readonly Edu[]> {
  const config = board.config(machine);
  const edus: Edu[] = [];
  for (const [index, slot] of slots.entries()) {
    edus.push(await Edu.open(machine, config, slot, board.registers + index * 0x10_0000));
  }
  return edus;
}

/** Runs the examination; throws at the first disagreement. */
export async function examine(qemu: Qemu, examination: Examination): Promise<void> {
  const { board, format } = examination;
  const random = new Random(seed());
  const memory = new TableMemory(board.tables);
  const unit = createUnit(format, memory, examination.unit);
  const tables: HardwareTable[] = [];
  const mappings: (readonly MadeMapping[])[] = [];
  for (let domain = 0; domain < 2; domain++) {
    const table = madeTable(createPageTable(format, memory, examination.table));
    const without = scratchRange(table, board);
    assertEquals(table.map(without.first, without.last, without.first, READ | WRITE), OK);
    tables.push(table);
    mappings.push(
      mapRandomly(random, table, { count: MAPPINGS, ram: board.ram, without, ...examination }),
    );
  }
  await using machine = new Qtest(qemu, [...board.args, ...SLOTS.flatMap(eduArguments)]);
  const edus = await openEdus(machine, board, SLOTS);
  for (const index of [0, 1]) {
    const { bdf } = edus[index];
    const second = examination.second === undefined
      ? undefined
      : secondStage(random, memory, board, examination.second);
    const status = second === undefined
      ? unit.attach(bdf, tables[index])
      : unit.attachNested(bdf, tables[index], second);
    assertEquals(status, OK);
  }
  assertEquals(unit.bypass(edus[2].bdf), OK);
  const loader = new TableLoader(machine, memory);
  await loader.load();
  const judge = board.judge(machine);
  await judge.enable(unit.registers());
  const agreement = new Agreement({
    machine,
    judge,
    unit,
    scratch: board.scratch,
    ...(examination.codeOf === undefined ? {} : { codeOf: examination.codeOf }),
  });

  for (const index of [0, 1]) {
    await askAround(agreement, unit, random, edus[index], mappings[index]);
  }
  assert(agreement.translated > 3 * MAPPINGS, `${agreement.translated} accesses translated`);
  assert(agreement.refusals > MAPPINGS, `${agreement.refusals} accesses refused`);

  await askBeyond(agreement, edus[0], tables[0], examination.beyond);
  for (const access of ["r", "w"] as const) {
    const { first, last } = board.ram[0];
    const iova = (first + random.below(last - first)) * 4096;
    await agreement.ask({ edu: edus[2], iova, access });
    if (examination.stranger !== false) {
      await agreement.ask({ edu: edus[3], iova, access, untouched: iova });
    }
  }
  if (examination.wrongBits !== undefined) {
    await askCorrupted(random, CORRUPTIONS, {
      machine,
      agreement,
      unit,
      memory,
      judge,
      edu: edus[0],
      mappings: mappings[0],
      scratch: board.scratch,
      ram: board.ram,
      except: examination.wrongBits,
    });
  }
  await askAfterUnmap();

  /** Unmaps half of the first domain and asks about all of it again. */
  async function askAfterUnmap(): Promise<void> {
    const removed = mappings[0].filter(() => random.below(2) === 0);
    for (const { first, last } of removed) {
      assertEquals(tables[0].unmap(first, last), last - first + 1);
    }
    tables[0].gather.flush();
    await loader.load();
    await judge.invalidateAll();
    const before = agreement.refusals;
    await askAround(agreement, unit, random, edus[0], mappings[0]);
    assert(agreement.refusals - before > removed.length, "what was unmapped is refused");
  }
}

/** Pages of a block that the second stage moves as a whole. */
const BLOCK = 512;

/**
 * A second stage that leaves tables and scratch page where they are and moves the rest of RAM about in blocks,
 * some of them missing, some for reads or writes alone.
 */
function secondStage(
  random: Random,
  memory: TableMemory,
  board: Board,
  { format, table: options }: NonNullable<Examination["second"]>,
): HardwareTable {
  const table = madeTable(createPageTable(format, memory, options));
  const tables = { first: memory.baseFrame, last: memory.baseFrame + memory.capacity - 1 };
  for (const { first, last } of [tables, scratchRange(table, board)]) {
    assertEquals(table.map(first, last, first, READ | WRITE), OK);
  }
  for (const { first, last } of board.ram) {
    const blocks: number[] = [];
    for (let page = first; page + BLOCK - 1 <= last; page += BLOCK) blocks.push(page);
    for (let index = 0; index < blocks.length; index++) {
      const other = index + random.below(blocks.length - index);
      [blocks[index], blocks[other]] = [blocks[other], blocks[index]];
      const protection = random.pick([0, READ, WRITE, ...Array(9).fill(READ | WRITE)]);
      if (protection === 0) continue;
      const frame = blocks[index];
      const home = first + index * BLOCK;
      assertEquals(table.map(home, home + BLOCK - 1, frame, protection), OK);
    }
  }
  return table;
}

/** First, last and a random page of each mapping and a page beside it, both ways. */
async function askAround(
  agreement: Agreement,
  unit: TranslationUnit,
  random: Random,
  edu: Edu,
  mappings: readonly MadeMapping[],
): Promise<void> {
  const result = new WalkResult();
  for (const { first, last, frame } of mappings) {
    const inside = new Set([first, first + random.below(last - first + 1), last]);
    for (const page of inside) {
      const offset = 8 * random.below(512);
      const untouched = (frame + page - first) * 4096 + offset;
      for (const access of ["r", "w"] as const) {
        await agreement.ask({ edu, iova: page * 4096 + offset, access, untouched });
      }
    }
    const beside = first > 0 && random.below(2) === 0 ? first - 1 : last + 1;
    // An address in the interrupt range is no DMA address: nothing is translated, no fault recorded.
    unit.walk(edu.bdf, beside, READ, result);
    if (!result.ok && result.faultName === "interrupt-request") continue;
    const iova = beside * 4096 + 8 * random.below(512);
    await agreement.ask({ edu, iova, access: random.pick(["r", "w"] as const) });
  }
}

/** Addresses that the tables are too small for. */
async function askBeyond(
  agreement: Agreement,
  edu: Edu,
  table: HardwareTable,
  beyond: readonly number[] | undefined,
): Promise<void> {
  const limit = 2 ** (table.description.inputBits - 12);
  for (const page of beyond ?? [limit, limit + 5]) {
    for (const access of ["r", "w"] as const) {
      await agreement.ask({ edu, iova: page * 4096, access });
    }
  }
}
