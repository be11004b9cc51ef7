/**
 * Device-table entries field by field: one endpoint behind tables of ours, and every value of every field of
 * the entries on its way, with what the specification says of the value.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import {
  createUnit,
  NO_PASID,
  OK,
  type PageTableOptions,
  READ,
  STAGE_DEVICE,
  type TableMemory,
  type TranslationUnit,
  type UnitOptions,
  WalkResult,
  WRITE,
} from "../../pagetable/mod.ts";
import { faultOf, makeTable, setWord, word } from "./table_words.ts";

/** What a walk ends with, as `faultOf` says it. */
export type Outcome = string;

/** A field of an entry. */
export interface Field {
  /** Name, with the section that defines it where that is not the entry's own. */
  readonly name: string;
  /** Lowest bit in the entry. */
  readonly low: number;
  /** Highest bit in the entry. */
  readonly high: number;
  /** What the specification says of a value. */
  readonly rule: (value: number) => Outcome;
  /** Which values QEMU 11.1 takes for something else, or cannot be asked about; default none. */
  readonly unlikeQemu?: (value: number) => boolean;
}

/** A kind of entry, by its fields. Bits that no field has are not judged. */
export interface Entry {
  /** Which entry on the endpoint's way it is, 0 being the first. */
  readonly step: number;
  readonly fields: readonly Field[];
}

/** An endpoint's tables, and the entries on the way to them. */
export interface Scenario {
  readonly format: string;
  readonly table: PageTableOptions;
  /** Second stage below it. */
  readonly second?: { readonly format: string; readonly table: PageTableOptions };
  readonly unit: UnitOptions;
  /** PASID that has a table of its own. */
  readonly pasid?: number;
  /** PASID of the requests that are made; default none. */
  readonly asks?: number;
  /** What they end with before anything is changed; default `ok`. */
  readonly begins?: Outcome;
  readonly entries: Readonly<Record<string, Entry>>;
}

/** Where a scenario puts things, in pages and frames. */
export interface Place {
  readonly endpoint: number;
  /** The page that is asked about. */
  readonly page: number;
  /** Where it leads. */
  readonly frame: number;
  /** A page that leads to the frame of the same number; both are in the same GiB. */
  readonly scratch: number;
}

/** One field that holds a value. */
export interface Changed {
  readonly entry: string;
  readonly field: Field;
  readonly value: number;
  /** Byte address of the 64-bit word that the field is in. */
  readonly address: number;
  /** That word now. */
  readonly word: bigint;
  /** That word without the change. */
  readonly before: bigint;
}

/** The tables of a scenario. */
export class FieldWorld {
  readonly unit: TranslationUnit;
  readonly #memory: TableMemory;
  readonly #scenario: Scenario;
  readonly #place: Place;

  /** Builds them in `memory`, whose first page must be at a multiple of 64 KiB: the last stage's top table comes there. */
  constructor(scenario: Scenario, memory: TableMemory, place: Place) {
    const { format, second, pasid } = scenario;
    this.#scenario = scenario;
    this.#memory = memory;
    this.#place = place;
    const below = second === undefined ? null : makeTable(second.format, memory, second.table);
    const table = makeTable(format, memory, scenario.table);
    this.unit = createUnit(format, memory, scenario.unit);
    for (const [page, frame] of [[place.page, place.frame], [place.scratch, place.scratch]]) {
      assertEquals(table.map(page, page, frame, READ | WRITE), OK);
    }
    const endpoint = place.endpoint;
    if (below === null) {
      assertEquals(this.unit.attach(endpoint, table, 1), OK);
    } else {
      assertEquals(this.unit.attachNested(endpoint, table, below, 1), OK);
      const tables = [memory.baseFrame, memory.baseFrame + memory.capacity - 1];
      const pages = [place.page, place.frame, place.scratch].map((page) => [page, page]);
      for (const [first, last] of [tables, ...pages]) {
        assertEquals(below.map(first, last, first, READ | WRITE), OK);
      }
    }
    if (pasid !== undefined) assertEquals(this.unit.attach(endpoint, table, 1, pasid), OK);
  }

  /** What a read of the page ends with. */
  ask(): Outcome {
    return faultOf(this.unit, this.#place.endpoint, this.#place.page, READ, this.#scenario.asks);
  }

  /**
   * Sets each field of each entry to each of its values, one at a time, and calls `look` while it holds it.
   * Wide fields take 0, all ones, and each bit alone.
   */
  async each(look: (changed: Changed) => void | Promise<void>): Promise<void> {
    for (const [name, { step, fields }] of Object.entries(this.#scenario.entries)) {
      const [frame, index] = this.#find(step);
      for (const field of fields) {
        const at = index + (field.low >> 6);
        const kept = word(this.#memory, frame, at);
        for (const value of valuesOf(field)) {
          const changed = put(kept, field, value);
          setWord(this.#memory, frame, at, changed);
          const address = (frame * 512 + at) * 8;
          await look({ entry: name, field, value, address, word: changed, before: kept });
        }
        setWord(this.#memory, frame, at, kept);
      }
    }
  }

  #find(step: number): readonly [number, number] {
    const result = new WalkResult();
    const { endpoint, page } = this.#place;
    this.unit.walk(endpoint, page, READ, result, this.#scenario.asks ?? NO_PASID);
    let seen = 0;
    for (let at = 0; at < result.depth; at++) {
      if (result.pathStage[at] !== STAGE_DEVICE) continue;
      if (seen++ === step) return [result.pathFrame[at], result.pathIndex[at]];
    }
    throw new Error(`There is no device entry ${step}`);
  }
}

/** One field of `low` to `high`; `rule` says what a value means. */
export function field(
  name: string,
  high: number,
  low: number,
  rule: Outcome | ((value: number) => Outcome),
  unlikeQemu?: (value: number) => boolean,
): Field {
  return {
    name,
    low,
    high,
    rule: typeof rule === "string" ? () => rule : rule,
    ...(unlikeQemu === undefined ? {} : { unlikeQemu }),
  };
}

/** A rule: `fault` for any value but 0. */
export function zeroElse(fault: Outcome): (value: number) => Outcome {
  return (value) => value === 0 ? "ok" : fault;
}

/** A rule: `fault` for 0. */
export function oneElse(fault: Outcome): (value: number) => Outcome {
  return (value) => value === 0 ? fault : "ok";
}

/** For `unlikeQemu`: any value but 0. */
export function unlessZero(value: number): boolean {
  return value !== 0;
}

/** For `unlikeQemu`: every value. */
export function always(): boolean {
  return true;
}

function valuesOf({ low, high }: Field): readonly number[] {
  const width = high - low + 1;
  if (width > 32) throw new RangeError("A field in a test has at most 32 bits");
  if (width <= 6) return Array.from({ length: 2 ** width }, (_, value) => value);
  const single = Array.from({ length: width }, (_, bit) => 2 ** bit);
  return [0, ...single, 2 ** width - 1];
}

function put(before: bigint, { low, high }: Field, value: number): bigint {
  const shift = BigInt(low & 63);
  const mask = ((1n << BigInt(high - low + 1)) - 1n) << shift;
  return (before & ~mask) | BigInt(value) << shift;
}
