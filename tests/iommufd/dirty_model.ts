/** Dirty tracking in random histories: devices that write through page tables, and what reading that must answer. */
import { assert, assertEquals } from "@std/assert";
import {
  DirtyReader,
  EINVAL,
  type IoAddressSpace,
  OK,
  type PageTable,
  setDirtyTracking,
  WRITE,
} from "../../iommufd/mod.ts";
import { WalkResult } from "../../pagetable/mod.ts";
import { ENDPOINT } from "../pagetable/formats_under_test.ts";
import type { Model, ModelArea } from "./model.ts";
import { PlainTable } from "./plain_table.ts";
import { asTable, type WorldTable } from "./world_tables.ts";

/** The pages written through each page table. */
export class DirtyModel {
  readonly #model: Model;
  readonly #dirty = new Map<PageTable, Set<number>>();
  readonly #tracking = new Set<PageTable>();
  readonly #walk = new WalkResult();

  /** Nothing is tracked. */
  constructor(model: Model) {
    this.#model = model;
  }

  /** Starts or stops recording writes. */
  track(engine: IoAddressSpace, space: number, isOn: boolean): void {
    const tables = this.#model.tables[space];
    assertEquals(setDirtyTracking(engine, isOn), tables.length === 0 ? EINVAL : OK);
    for (const each of tables) {
      const table = asTable(each);
      if (isOn) {
        this.#tracking.add(table);
        this.#dirty.set(table, new Set());
      } else this.#tracking.delete(table);
    }
  }

  /** A device writes through a page table; what is permitted is marked if the table tracks. */
  write(space: number, which: number, page: number): void {
    const tables = this.#model.tables[space];
    if (tables.length === 0) return;
    const each = tables[which % tables.length];
    const table = asTable(each);
    const area = this.#model.areaAt(space, page);
    const isPermitted = area !== undefined && (area.protection & WRITE) !== 0;
    if (each instanceof PlainTable) {
      if (isPermitted) each.write(page);
    } else {
      assertEquals(each.unit.access(ENDPOINT, page, WRITE, this.#walk), isPermitted);
    }
    if (isPermitted && this.#tracking.has(table)) this.#dirty.get(table)!.add(page);
  }

  /** Reads what was written through a page table, and makes it clean. */
  readDirty(space: number, which: number): void {
    const tables = this.#model.tables[space];
    if (tables.length === 0) return;
    const table = asTable(tables[which % tables.length]);
    if (!this.#tracking.has(table)) return;
    const wanted = this.#dirty.get(table)!;
    const bitmap = new Uint8Array(128);
    assertEquals(new DirtyReader().read(table, 0, 1023, 0, bitmap, true), OK);
    const isMarked = (page: number): boolean => (bitmap[page >> 3] & (1 << (page & 7))) !== 0;
    const written = [...wanted].map((page) => this.#model.areaAt(space, page));
    for (let page = 0; page < 1024; page++) {
      if (wanted.has(page)) assert(isMarked(page), `page ${page} was written`);
      // A leaf may span several pages, but not several mappings.
      else if (isMarked(page)) {
        assert(written.includes(this.#model.areaAt(space, page)), `page ${page}`);
      }
    }
    wanted.clear();
    bitmap.fill(0);
    new DirtyReader().read(table, 0, 1023, 0, bitmap, false);
    assert(bitmap.every((byte) => byte === 0), "what was read is not clean");
  }

  /** An area was unmapped. */
  unmapped(space: number, area: ModelArea): void {
    for (const table of this.#model.tables[space]) {
      const dirty = this.#dirty.get(asTable(table));
      for (let page = area.first; page <= area.last; page++) dirty?.delete(page);
    }
  }

  /** A page table was detached. */
  detached(table: WorldTable): void {
    this.#dirty.delete(asTable(table));
    if (this.#tracking.delete(asTable(table))) asTable(table).setDirtyTracking(false);
  }
}
