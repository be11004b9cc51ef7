/** What can be seen of the engine, compared with the model. */
import { assert, assertEquals } from "@std/assert";
import {
  GuestSource,
  type IoAddressSpace,
  MMIO,
  type PageList,
  type Protection,
  READ,
  WRITE,
} from "../../iommufd/mod.ts";
import { WalkResult } from "../../pagetable/mod.ts";
import { type Bench, ENDPOINT } from "../pagetable/formats_under_test.ts";
import { INDEXES, type Model } from "./model.ts";
import { PlainTable } from "./plain_table.ts";
import type { ScriptedSource } from "./scripted_source.ts";
import { entriesOf } from "./world_tables.ts";

const walked = new WalkResult();

/** Compares a page list with the model. Returns the pages that it has pinned. */
export function checkList(
  model: Model,
  list: number,
  engine: PageList,
  source: ScriptedSource | GuestSource,
): number {
  const held = model.held(list);
  const pinned = model.pinnedOf(list);
  assertEquals(engine.pinnedPages, pinned, `pinned pages of list ${list}`);
  if (!(source instanceof GuestSource)) {
    assertEquals(source.pinnedFrames, pinned, `I1: pinned frames of list ${list}`);
    for (let index = 0; index < INDEXES; index++) {
      const { frame, isDevice } = model.backing(list, index);
      const pins = held[index] && !isDevice ? 1 : 0;
      assertEquals(source.pins.get(frame) ?? 0, pins, `I1: pins of index ${index}`);
    }
  }
  const stored = model.stored(list);
  for (let index = 0; index < INDEXES; index++) {
    const frame = stored[index] ? model.backing(list, index).frame : -1;
    assertEquals(engine.store.runAt(index, index), frame, `I2: store at ${index}`);
  }
  if (engine.tier !== null) {
    let areas = 0;
    for (let space = 0; space < model.tables.length; space++) {
      if (model.tables[space].length === 0) continue;
      areas += model.areas[space].filter((area) => area.list === list).length;
    }
    assertEquals(engine.tier.tree.count, areas, "I3: areas in the tree of the list");
  }
  const slices = model.areas.flat().filter((area) => area.list === list).length;
  assertEquals(engine.areas, slices, "areas of the list");
  return pinned;
}

/** Compares an address space with the model, in every page table and page by page. */
export function checkSpace(
  model: Model,
  space: number,
  engine: IoAddressSpace,
  lists: readonly PageList[],
): void {
  const areas = model.areas[space].toSorted((one, other) => one.first - other.first);
  const cursor = engine.mappings();
  let pages = 0;
  for (const area of areas) {
    assert(cursor.next(), "a mapping is missing");
    const shown = [cursor.first, cursor.last, cursor.index, cursor.protection];
    assertEquals(shown, [area.first, area.last, area.index, area.protection]);
    assert(cursor.list === lists[area.list], "a mapping has the wrong list");
    pages += area.last - area.first + 1;
  }
  assert(!cursor.next(), "I5: a mapping too many");
  assertEquals([engine.mappingCount, engine.pageCount], [areas.length, pages]);
  assertEquals(engine.tables.length, model.tables[space].length);
  for (const each of model.tables[space]) {
    assertEquals(entriesOf(each), pages, "I4: entries of a page table");
    for (const area of areas) {
      for (let page = area.first; page <= area.last; page++) {
        const { frame, isDevice } = model.backing(area.list, area.index + page - area.first);
        const protection = isDevice ? area.protection | MMIO : area.protection;
        if (each instanceof PlainTable) {
          assertEquals(each.frameAt(page), frame, `I4: frame at ${page}`);
          assertEquals(each.protectionAt(page), protection, `I4: protection at ${page}`);
        } else checkWalk(each, page, frame, area.protection);
      }
    }
  }
}

/** What the hardware makes of a page: the walker shares no code with what wrote the entry. */
function checkWalk(
  { unit }: Bench,
  page: number,
  frame: number,
  protection: Protection,
): void {
  for (const access of [READ, WRITE]) {
    const isPermitted = (protection & access) !== 0;
    assertEquals(unit.walk(ENDPOINT, page, access, walked), isPermitted, `walk of ${page}`);
    if (isPermitted) assertEquals(walked.frame, frame, `I4: frame at ${page}`);
  }
}
