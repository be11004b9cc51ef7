/** What a million areas cost, and that steady traffic makes no garbage. */
import { assert, assertEquals } from "@std/assert";
import { createPageList, GuestSource, IoAddressSpace, OK, READ, WRITE } from "../../iommufd/mod.ts";
import type { PageTable } from "../../pagetable/page_table.ts";

/** Counts mapped pages and keeps nothing: the engine alone is looked at here. */
class CountingTable implements PageTable {
  readonly format = "counting";
  readonly firstPage = 0;
  readonly lastPage = 2 ** 40;
  readonly lastFrame = 2 ** 40;
  readonly leafOrders = [0, 9, 18];
  readonly tracksDirty = false;
  readonly tablePages = 0;
  readonly interruptPages = null;
  runLast = 0;
  mapped = 0;

  map(firstPage: number, lastPage: number): number {
    this.mapped += lastPage - firstPage + 1;
    return OK;
  }

  unmap(firstPage: number, lastPage: number): number {
    return lastPage - firstPage + 1;
  }

  frameAt(): number {
    return -1;
  }

  runAt(_page: number, lastPage: number): number {
    this.runLast = lastPage;
    return -1;
  }

  flush(): void {}

  setDirtyTracking(): number {
    return 95;
  }

  readDirty(): number {
    return 95;
  }

  destroy(): void {}
}

/** Numbers that look random, each below the power of two `limit` once before any comes again. */
function scattered(at: number, limit: number): number {
  return Math.imul(at, 0x9e3779b1) >>> 0 & (limit - 1);
}

Deno.test("a million scattered one-page mappings take at most 128 bytes each, all told", () => {
  const count = 1_000_000;
  const guestPages = 2 ** 24;
  const source = new GuestSource();
  source.addRegion(0, guestPages - 1);
  const list = createPageList(source);
  const space = new IoAddressSpace();
  const table = new CountingTable();
  space.addPageTable(table);
  for (let at = 0; at < count; at++) {
    const page = scattered(at, 2 ** 30);
    if (space.map(page, page, list, scattered(at * 5 + 1, guestPages), READ | WRITE) !== OK) {
      throw new Error(`map ${at} was refused`);
    }
  }
  assertEquals([space.mappingCount, table.mapped], [count, count]);
  const bytes = space.bytes + list.bytes;
  assert(bytes / count <= 128, `${bytes / count} bytes a mapping`);
  for (let at = 0; at < count; at += 1000) {
    const page = scattered(at, 2 ** 30);
    assert(space.find(page) && space.found.index === scattered(at * 5 + 1, guestPages));
  }
  assertEquals(space.unmapAll(), OK);
  assertEquals([space.removedMappings, space.removedPages, list.pinnedPages], [count, count, 0]);
});

Deno.test("a million MAP and UNMAP pairs in a settled space leave nothing on the heap", () => {
  const source = new GuestSource();
  source.addRegion(0, 2 ** 20 - 1);
  const list = createPageList(source);
  const space = new IoAddressSpace();
  space.addPageTable(new CountingTable());
  const live = 4096;
  for (let at = 0; at < live; at++) space.map(at * 3, at * 3, list, at * 7, READ);
  const pair = (at: number): void => {
    const page = scattered(at, live) * 3;
    space.unmap(page, page);
    space.map(page, page, list, scattered(at, 2 ** 20), READ);
  };
  for (let at = 0; at < 400_000; at++) pair(at);
  // Ten rounds: a single number would also show what the compiler and the collector happen to do meanwhile.
  const growth: number[] = [];
  for (let round = 0; round < 10; round++) {
    const before = Deno.memoryUsage();
    for (let at = 0; at < 100_000; at++) pair(at);
    const after = Deno.memoryUsage();
    growth.push(after.heapUsed + after.external - before.heapUsed - before.external);
  }
  const median = growth.sort((one, other) => one - other)[5];
  assert(median < 100_000, `${growth} bytes in rounds of a hundred thousand pairs`);
  assertEquals(space.mappingCount, live);
});
