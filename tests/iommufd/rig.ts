/** What most engine tests need: a scripted source, a page list over it, spaces, page tables, one log and one plan. */
import { assertEquals } from "@std/assert";
import { IoAddressSpace, OK, PageList, type PinBudget } from "../../iommufd/mod.ts";
import { FREE_GROWTH, type Growth } from "../../iommufd/growth.ts";
import { EventOrder } from "./event_order.ts";
import { EventLog, FaultPlan } from "./fault_plan.ts";
import { PlainTable, type PlainTableOptions } from "./plain_table.ts";
import { ScriptedSource, type ScriptOptions, StableScript } from "./scripted_source.ts";

/** The sort of source that rigs are made with. */
let isStable = false;

/** A test that runs over an unstable source and over a stable one. */
export function onBothSorts(name: string, run: () => void): void {
  for (const sort of ["unstable", "stable"]) {
    Deno.test(`${name} [${sort}]`, () => {
      isStable = sort === "stable";
      try {
        run();
      } finally {
        isStable = false;
      }
    });
  }
}

export interface RigOptions extends ScriptOptions {
  readonly writable?: boolean;
  readonly budget?: PinBudget;
  readonly slots?: number;
  readonly chunkPages?: number;
  readonly growth?: Growth;
}

export class Rig {
  readonly log = new EventLog();
  readonly plan = new FaultPlan();
  readonly source: ScriptedSource | StableScript;
  readonly list: PageList;
  readonly spaces: IoAddressSpace[] = [];
  readonly tables: PlainTable[] = [];

  constructor(readonly frames: readonly number[], options: RigOptions = {}) {
    const { log, plan } = this;
    this.source = isStable
      ? new StableScript(frames, { ...options, log, plan })
      : new ScriptedSource(frames, { ...options, log, plan });
    this.list = new PageList(this.source, {
      writable: options.writable ?? true,
      budget: options.budget ?? null,
      growth: options.growth ?? FREE_GROWTH,
      batches: { slots: options.slots ?? 64, chunkPages: options.chunkPages ?? 64 },
    });
    if (this.source.isStable) this.source.list = this.list;
  }

  /** A new address space with so many page tables. */
  space(tables: number = 0): IoAddressSpace {
    const space = new IoAddressSpace();
    this.spaces.push(space);
    for (let at = 0; at < tables; at++) assertEquals(space.addPageTable(this.table()), OK);
    return space;
  }

  /** A new page table with the rig's log and plan. */
  table(options: PlainTableOptions = {}): PlainTable {
    const { log, plan } = this;
    const table = new PlainTable({ name: `D${this.tables.length}`, log, plan, ...options });
    this.tables.push(table);
    return table;
  }

  /** Adds an access and gives the frames it got. */
  user(first: number, last: number, isWrite: boolean = false): number[] {
    const frames = new Float64Array(last - first + 1).fill(-7);
    assertEquals(this.list.addAccess(first, last, frames, isWrite), OK);
    return [...frames];
  }

  /** Frames of a table's pages, -1 for none. */
  seen(table: PlainTable, first: number, last: number): number[] {
    return Array.from({ length: last - first + 1 }, (_, at) => table.frameAt(first + at));
  }

  /** The indexes whose frames the store holds. */
  stored(): number[] {
    return this.frames.map((_, index) => index).filter((index) =>
      this.list.store.runAt(index, index) >= 0
    );
  }

  /** Makes the next n-th map call of a table fail, whatever else can. */
  failMap(table: PlainTable, nth: number): void {
    let calls = 0;
    const map = table.map.bind(table);
    table.map = (first, last, frame, protection) => {
      if (++calls === nth) return 12;
      return map(first, last, frame, protection);
    };
  }

  /** Takes everything down and checks that nothing is left. */
  end(): void {
    for (const space of this.spaces) {
      for (const table of [...space.tables]) assertEquals(space.removePageTable(table), OK);
      assertEquals(space.destroy(), OK);
    }
    for (const table of this.tables) assertEquals(table.entries.size, 0);
    assertEquals(this.source.pinnedFrames, 0);
    if (this.list.budget !== null) assertEquals(this.list.budget.chargedPages, 0);
    this.list.release();
  }

  /** I7: no frame lost its last pin while a page table led to it. */
  checkUnmapBeforeUnpin(): void {
    new EventOrder(this.log).check();
  }
}
