/** Filling page tables in steps: what is refused meanwhile, what accesses may do, and how it ends in the middle. */
import { assert, assertEquals } from "@std/assert";
import {
  Access,
  createPageList,
  EBUSY,
  ENOMEM,
  GuestSource,
  IoAddressSpace,
  OK,
  type PageList,
  PinBudget,
  READ,
  WRITE,
} from "../../iommufd/mod.ts";
import { createPageTable, type HardwareTable, TableMemory } from "../../pagetable/mod.ts";
import { WholeTable } from "./whole_table.ts";

const RW = READ | WRITE;
/** Eight steps of small leaves. */
const PAGES = 2 ** 19;
const FIRST = 2 ** 20;

/** A space with one page table, over guest memory of which the first pages are RAM. */
class World {
  readonly memory = new TableMemory({ baseFrame: 2 ** 26, bytes: 2 ** 26 });
  readonly source = new GuestSource();
  readonly list: PageList;
  readonly space = new IoAddressSpace();
  readonly table: HardwareTable;

  constructor() {
    this.source.addRegion(0, 0xffff, {});
    this.list = createPageList(this.source, { budget: new PinBudget(2 ** 20) });
    this.table = this.make("vtd-ss");
    assertEquals(this.space.addPageTable(this.table), OK);
  }

  make(format: string): HardwareTable {
    const table = createPageTable(format, this.memory);
    if (typeof table === "number") throw new Error(`Cannot make ${format}: ${table}`);
    return table;
  }

  /** Does all steps that are left. Returns how many. */
  finish(): number {
    let steps = 1;
    while (!this.space.fillStep()) steps++;
    return steps;
  }

  /** Ends it, and fails if anything is left. */
  end(): void {
    assertEquals(this.space.unmapAll(), OK);
    for (const table of [...this.space.tables]) {
      assertEquals(this.space.removePageTable(table), OK);
      (table as HardwareTable).destroy();
    }
    assertEquals(this.space.destroy(), OK);
    assertEquals([this.list.budget!.chargedPages, this.memory.used], [0, 0]);
    this.list.release();
  }
}

Deno.test("while page tables are filled in steps, all that would change the space is refused", () => {
  const world = new World();
  const { space, list } = world;
  assertEquals(space.beginMap(FIRST, FIRST + PAGES - 1, list, 1, RW), OK);
  assertEquals([space.isFilling, space.fillStep(), space.isFilling], [true, false, true]);
  const other = world.make("amdv1");
  assertEquals(
    [
      space.map(0, 0, list, 0, RW),
      space.beginMap(0, 0, list, 0, RW),
      space.unmap(0, 0),
      space.unmapAll(),
      space.addPageTable(other),
      space.beginAddPageTable(other),
      space.removePageTable(world.table),
      space.setLargePages(false),
      space.clearAhead(FIRST),
    ],
    [...Array(8).fill(EBUSY), -1],
  );
  world.finish();
  assertEquals([space.fillError, space.isFilling], [OK, false]);
  other.destroy();
  assertEquals(space.map(0, 0, list, 0, RW), OK);
  world.end();
});

Deno.test("filling that is abandoned anywhere is undone by an ordinary unmap and removal", () => {
  for (const steps of [0, 1, 3, 7]) {
    const world = new World();
    const { space, list } = world;
    assertEquals(space.beginMap(FIRST, FIRST + PAGES - 1, list, 1, RW), OK);
    for (let i = 0; i < steps; i++) assertEquals(space.fillStep(), false);
    space.abandonFill();
    world.end();
  }
  for (const steps of [0, 1, 3, 7]) {
    const world = new World();
    const { space, list } = world;
    assertEquals(space.map(FIRST, FIRST + PAGES - 1, list, 1, RW), OK);
    assertEquals(space.beginAddPageTable(world.make("smmuv3-s2")), OK);
    for (let i = 0; i < steps; i++) assertEquals(space.fillStep(), false);
    space.abandonFill();
    world.end();
  }
});

Deno.test("accesses pin and let go while page tables are filled, and before a mapping is emptied", () => {
  const world = new World();
  const { space, list } = world;
  let asked = 0;
  const access: Access = new Access({
    onUnmap: () => {
      asked++;
      access.unpinAll(0, 2 ** 52 - 1);
    },
  });
  assertEquals(access.attach(space), OK);
  assertEquals(space.beginMap(FIRST, FIRST + 2 ** 24, list, 1, RW), OK);
  space.fillStep();
  assertEquals(access.pin(FIRST + 5, FIRST + 5, null, true), OK);
  // 64 MiB of tables are too few.
  world.finish();
  assertEquals([space.fillError, space.mappingCount, asked], [ENOMEM, 0, 1]);
  const last = FIRST + 2 ** 22 + 2 ** 20;
  assertEquals(space.beginMap(FIRST, last, list, 1, RW), OK);
  assert(world.finish() >= 80);
  assertEquals(access.pin(FIRST + 5, FIRST + 5, null, true), OK);
  const { used } = world.memory;
  const next = space.clearAhead(FIRST);
  assertEquals([asked, access.pinCount], [2, 0]);
  assert(next > FIRST + 2 ** 21 && next <= FIRST + 2 ** 22, `${next - FIRST} pages`);
  assert(world.memory.used < used - 8000 && world.table.frameAt(FIRST) < 0);
  assert(world.table.frameAt(next) >= 0 && space.isMapped(FIRST, last));
  assertEquals(access.pin(FIRST + 5, FIRST + 5, null, true), OK);
  assertEquals(space.clearAhead(next), -1, "the rest is not worth a step of its own");
  assertEquals(space.unmapAll(), OK);
  assertEquals([asked, access.pinCount], [3, 0]);
  assertEquals(access.detach(), OK);
  world.end();
});

Deno.test("a page table that unmaps only whole mappings is never asked for a part of one", () => {
  const world = new World();
  const { space, list } = world;
  const whole = new WholeTable();
  assertEquals(space.addPageTable(whole), OK);
  // Aligned for the largest leaves but for its edges, with a run of RAM in it that is one mapping.
  const first = 2 ** 27 - 3;
  const last = first + 2 ** 24;
  world.source.addRegion(0x30000, 0x3fff0, {});
  assertEquals(space.beginMap(first, last, list, 2 ** 18 - 3, RW), OK);
  world.finish();
  assertEquals(space.fillError, OK);
  assert(whole.wholes.size > 10, `${whole.wholes.size} pieces`);
  assertEquals(whole.frameAt(last), 2 ** 18 - 3 + 2 ** 24);
  assertEquals(space.clearAhead(first), -1, "a part is not cleared");
  assertEquals([space.unmap(first, last), whole.wholes.size], [OK, 0]);
  // Refused in the middle, all pieces are taken back.
  whole.fail = (from) => from > first + 2 ** 23 ? ENOMEM : OK;
  assertEquals(space.beginMap(first, last, list, 2 ** 18 - 3, RW), OK);
  world.finish();
  assertEquals([space.fillError, whole.wholes.size, space.mappingCount], [ENOMEM, 0, 0]);
  assertEquals(space.removePageTable(whole), OK);
  world.end();
});

Deno.test("runs that touch are filled with leaves across them, as at once", () => {
  const [stepped, atOnce] = [new World(), new World()];
  for (const { source } of [stepped, atOnce]) {
    source.addRegion(0x10000, 0x10123, {});
    source.addRegion(0x10124, 0x5ffff, {});
    source.addRegion(0x60000, 0x6ffff, { firstFrame: 0x200000 });
  }
  assertEquals(stepped.space.beginMap(FIRST, FIRST + PAGES - 1, stepped.list, 0, RW), OK);
  stepped.finish();
  assertEquals(atOnce.space.map(FIRST, FIRST + PAGES - 1, atOnce.list, 0, RW), OK);
  for (let page = FIRST; page < FIRST + PAGES; page = atOnce.table.runLast + 1) {
    const frame = atOnce.table.runAt(page, FIRST + PAGES - 1);
    assertEquals(stepped.table.runAt(page, FIRST + PAGES - 1), frame);
    assertEquals(stepped.table.runLast, atOnce.table.runLast);
  }
  assertEquals(stepped.table.tablePages, atOnce.table.tablePages);
  stepped.end();
  atOnce.end();
});
