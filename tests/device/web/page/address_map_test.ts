/** The map of the I/O address space: views, cells, and that nothing that is mapped is lost between cells. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  cellFirst,
  cellOf,
  cellPages,
  CELLS,
  cells,
  mappingAt,
  SPACE_PAGES,
  viewAround,
  viewOf,
  WHOLE,
} from "../../../../device/web/page/address_map.ts";
import { RESERVED } from "../../../../device/web/page/playground.ts";
import { READ, WRITE } from "../../../../pagetable/mod.ts";

const page = fc.integer({ min: 0, max: SPACE_PAGES - 1 });
const view = fc.tuple(page, fc.integer({ min: 10, max: 36 })).map(([at, order]) =>
  viewAround(at, 2 ** order)
);
/** Mappings that do not overlap, ascending. */
const mappings = fc.uniqueArray(page, { maxLength: 40 }).map((pages) => {
  const sorted = pages.toSorted((a, b) => a - b);
  return sorted.flatMap((first, at) => {
    if (at % 2 === 1) return [];
    const last = sorted[at + 1] ?? first;
    return [{ first, last, frame: at, protection: at % 4 === 0 ? READ : WRITE }];
  });
});

Deno.test("a view is aligned to its size, and each of its pages is in the cell that begins before it", () => {
  fc.assert(fc.property(view, page, (shown, at) => {
    assertEquals(shown.first % shown.pages, 0);
    const cell = cellOf(shown, at);
    const isShown = at >= shown.first && at < shown.first + shown.pages;
    assertEquals(cell >= 0 && cell < CELLS, isShown);
    if (!isShown) return;
    assert(cellFirst(shown, cell) <= at && at < cellFirst(shown, cell) + cellPages(shown));
  }));
});

Deno.test("the cells of a view count each mapped page once", () => {
  fc.assert(fc.property(view, mappings, (shown, all) => {
    const end = shown.first + shown.pages - 1;
    const expected = all.reduce((sum, { first, last }) => {
      const pages = Math.min(last, end) - Math.max(first, shown.first) + 1;
      return sum + Math.max(pages, 0);
    }, 0);
    const found = cells(shown, all, RESERVED);
    assertEquals(found.reduce((sum, { mapped }) => sum + mapped, 0), expected);
    found.forEach((cell, at) => {
      assert(cell.mapped <= cellPages(shown));
      const first = mappingAt(all, cellFirst(shown, at));
      if (first !== undefined) assert((cell.protection & first.protection) !== 0);
    });
  }));
});

Deno.test("one page of the whole space is seen, with its protection", () => {
  const found = cells(
    WHOLE,
    [{ first: 0x12345, last: 0x12345, frame: 0, protection: READ }],
    RESERVED,
  );
  assertEquals(found[0], { mapped: 1, protection: READ, mappings: 1, reserved: 256 });
});

Deno.test("the view of a range shows all of it, and no view of half the size does", () => {
  fc.assert(fc.property(page, page, (one, other) => {
    const [first, last] = [Math.min(one, other), Math.max(one, other)];
    const shown = viewOf(first, last);
    assert(shown.first <= first && last < shown.first + shown.pages);
    if (shown.pages === CELLS) return;
    const half = viewAround(first, shown.pages / 2);
    assert(last >= half.first + half.pages);
  }));
});
