/**
 * Fault sweep: every operation is repeated with the first, second, … n-th thing that can fail failing, until it runs
 * clean; after each refusal everything is as it was, which a full picture taken before and after shows. Then the same
 * with every pair of failures for whole sequences, after which everything is taken down.
 */
import { assert, assertEquals } from "@std/assert";
import {
  Access,
  AUTO,
  createPageList,
  type Errno,
  GuestSource,
  IoAddressSpace,
  OK,
  type PageList,
  READ,
  setDirtyTracking,
  WRITE,
} from "../../iommufd/mod.ts";
import { EventLog, FaultPlan } from "./fault_plan.ts";
import { PlainTable } from "./plain_table.ts";
import { contig, disc, PlannedBudget, ScriptedSource } from "./scripted_source.ts";

const RW = READ | WRITE;

/** A small world with both sorts of list. */
class Scene {
  readonly plan = new FaultPlan();
  readonly log = new EventLog();
  readonly budget = new PlannedBudget(10_000, this.plan, this.log);
  readonly source = new ScriptedSource(
    [...disc(12), ...contig(40, 5000), ...disc(12, 9000)],
    { plan: this.plan, log: this.log, pinLimit: 9 },
  );
  readonly guest = new GuestSource();
  readonly pinned: PageList;
  readonly leased: PageList;
  readonly space = new IoAddressSpace({ growth: this.plan });
  readonly other = new IoAddressSpace({ growth: this.plan });
  readonly access = new Access({ growth: this.plan });
  readonly tables: PlainTable[] = [];

  constructor() {
    const { plan: growth, budget } = this;
    const batches = { slots: 2, chunkPages: 4 };
    this.guest.addRegion(0, 19);
    this.guest.addRegion(20, 59, { firstFrame: 70_000 });
    this.pinned = createPageList(this.source, { growth, budget, batches });
    this.leased = createPageList(this.guest, { growth, budget });
    this.access.attach(this.space);
  }

  table(): PlainTable {
    const { plan, log } = this;
    const table = new PlainTable({ name: `D${this.tables.length}`, plan, log });
    this.tables.push(table);
    return table;
  }

  addTable(): void {
    assertEquals(this.space.addPageTable(this.table()), OK);
  }

  /** Everything there is to see. */
  picture(): unknown {
    const spaces = [this.space, this.other].map((space) => {
      const mappings: number[][] = [];
      const cursor = space.mappings();
      while (cursor.next()) {
        mappings.push([cursor.first, cursor.last, cursor.index, cursor.protection]);
      }
      return { mappings, tables: space.tables.length, usable: [...space.usableRanges] };
    });
    const entries = this.tables.map((table) =>
      [...table.entries].map(([page, entry]) => [page, entry.frame, entry.protection])
        .sort((one, two) => one[0] - two[0])
    );
    const list = this.pinned;
    const stored = this.source.frames.map((_, index) => list.store.runAt(index, index));
    return {
      spaces,
      entries,
      stored,
      pins: [...this.source.pins].sort((one, two) => one[0] - two[0]),
      counts: [
        list.pinnedPages,
        list.tier!.tree.count,
        list.store.count,
        this.leased.pinnedPages,
        this.budget.chargedPages,
        this.access.pinCount,
        this.pinned.areas,
        this.leased.areas,
      ],
    };
  }

  close(): void {
    this.plan.arm();
    this.access.unpinAll(0, 2 ** 52 - 1);
    assertEquals(this.access.detach(), OK);
    for (const space of [this.space, this.other]) {
      for (const table of [...space.tables]) space.removePageTable(table);
      assertEquals(space.destroy(), OK);
    }
    for (const table of this.tables) assertEquals(table.entries.size, 0);
    this.pinned.release();
    this.leased.release();
    assertEquals([this.source.pinnedFrames, this.budget.chargedPages], [0, 0]);
  }
}

/** Runs `act` on fresh scenes until no failure hits any more. Returns how many points there are. */
function sweep(prepare: (scene: Scene) => void, act: (scene: Scene) => Errno): number {
  for (let hit = 1; hit < 1000; hit++) {
    const scene = new Scene();
    prepare(scene);
    const before = scene.picture();
    scene.plan.arm(hit);
    const errno = act(scene);
    const hasFired = scene.plan.hasFired;
    if (hasFired) {
      assert(errno !== OK, `done although ${scene.plan.fired} failed`);
      assertEquals(scene.picture(), before, `after ${scene.plan.fired} failed as number ${hit}`);
    } else assertEquals(errno, OK);
    scene.close();
    if (!hasFired) return hit - 1;
  }
  throw new Error("There is no end of failures");
}

function twoTables(scene: Scene): void {
  scene.addTable();
  scene.addTable();
}

function populated(scene: Scene): void {
  scene.space.map(10, 40, scene.pinned, 5, RW);
  scene.space.map(100, 139, scene.leased, 10, RW);
  scene.space.map(200, 215, scene.pinned, 45, READ);
}

const OPERATIONS: [string, (scene: Scene) => void, (scene: Scene) => Errno, number][] = [
  ["map without page tables", () => {}, (s) => s.space.map(0, 63, s.pinned, 0, RW), 1],
  [
    "map of a pinned list in one page table",
    (s) => s.addTable(),
    (s) => s.space.map(0, 63, s.pinned, 0, RW),
    20,
  ],
  [
    "map of a pinned list in two page tables",
    twoTables,
    (s) => s.space.map(0, 63, s.pinned, 0, RW),
    40,
  ],
  [
    "map over store and page tables",
    (s) => {
      twoTables(s);
      populated(s);
      s.access.pin(12, 15, null, false);
    },
    (s) => s.space.map(300, 363, s.pinned, 0, RW),
    20,
  ],
  [
    "map of a leased list in two page tables",
    twoTables,
    (s) => s.space.map(0, 59, s.leased, 0, RW),
    6,
  ],
  [
    "map page by page",
    (s) => {
      s.space.setLargePages(false);
      s.addTable();
    },
    (s) => s.space.map(0, 29, s.leased, 15, RW),
    30,
  ],
  [
    "map at an automatic address",
    (s) => s.addTable(),
    (s) => s.space.mapAuto(30, s.pinned, 0, RW),
    10,
  ],
  [
    "copy across areas",
    (s) => {
      twoTables(s);
      populated(s);
      s.space.map(41, 60, s.leased, 0, RW);
    },
    (s) => s.space.copy(s.space, 15, 55, AUTO, READ),
    4,
  ],
  [
    "copy into a space with its own page table",
    (s) => {
      populated(s);
      s.other.addPageTable(s.table());
    },
    (s) => s.other.copy(s.space, 10, 40, 500, RW),
    10,
  ],
  [
    "attach the first page table",
    (s) => {
      populated(s);
      s.table();
    },
    (s) => s.space.addPageTable(s.tables[0]),
    20,
  ],
  [
    "attach a second page table",
    (s) => {
      s.addTable();
      populated(s);
      s.table();
    },
    (s) => s.space.addPageTable(s.tables[1]),
    10,
  ],
  ["pin through an access", populated, (s) => s.access.pin(10, 40, new Float64Array(31), true), 10],
  [
    "pin over a page table",
    (s) => {
      twoTables(s);
      populated(s);
    },
    (s) => s.access.pin(10, 40, null, false),
    2,
  ],
  ["pin of leased pages", populated, (s) => s.access.pin(100, 139, null, false), 2],
  ["start dirty tracking", twoTables, (s) => setDirtyTracking(s.space, true), 2],
];

for (const [name, prepare, act, atLeast] of OPERATIONS) {
  Deno.test(`fault sweep: ${name} fails at every point without a trace`, () => {
    const points = sweep(prepare, act);
    assert(points >= atLeast, `only ${points} points can fail`);
  });
}

for (
  const [name, act] of [
    ["unmap", (s: Scene) => s.space.unmap(0, 300)],
    ["unmap all", (s: Scene) => s.space.unmapAll()],
    ["detach a page table", (s: Scene) => s.space.removePageTable(s.tables[0])],
    ["unpin", (s: Scene) => s.access.unpin(10, 20)],
    ["detach an access", (s: Scene) => {
      s.access.unpinAll(0, 1000);
      return s.access.detach() || s.access.attach(s.space);
    }],
  ] as const
) {
  Deno.test(`fault sweep: to ${name} needs nothing that can fail`, () => {
    const points = sweep((scene) => {
      twoTables(scene);
      populated(scene);
      assertEquals(scene.access.pin(10, 20, null, false), OK);
      if (name.startsWith("unmap")) scene.access.unpin(10, 20);
    }, act);
    assertEquals(points, 0);
  });
}

for (const isTwo of [false, true]) {
  Deno.test(`fault sweep: pairs of failures on ${isTwo ? "two page tables" : "attach, map, detach, attach"}`, () => {
    let pairs = 0;
    for (let first = 1; first <= 40; first++) {
      for (let second = first + 1; second <= 41; second++) {
        const scene = new Scene();
        const { space } = scene;
        scene.plan.arm(first, second);
        const one = scene.table();
        space.addPageTable(one);
        const other = isTwo ? scene.table() : one;
        if (isTwo) space.addPageTable(other);
        space.mapAuto(60, scene.pinned, 0, RW);
        space.mapAuto(40, scene.leased, 0, RW);
        if (!isTwo) space.removePageTable(one);
        space.addPageTable(scene.table());
        if (scene.plan.fired.length === 2) pairs++;
        scene.close();
      }
    }
    assert(pairs > 250, `only ${pairs} pairs were met`);
  });
}
