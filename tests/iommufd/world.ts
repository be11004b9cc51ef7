/**
 * The engine next to a model of it, for histories of random operations.
 *
 * The model knows areas, page tables, accesses and what each source holds as plain lists and answers what every
 * operation must answer. After every step everything that can be seen of the engine is compared with what the model
 * says, which are the invariants: a page is pinned once if anything holds it (I1), the store holds what accesses hold
 * (I2), areas are in the list's tree if and only if their space has a page table (I3), all page tables of a space are
 * equal (I4), nothing half-built is left (I5), what is pinned is charged (I6), a frame is unmapped everywhere and flushed
 * before its last unpin, and before the memory of a region goes (I7, from the event log), no unmap splits a run (I8, the
 * plain table throws), unmapping, detaching and unpinning allocate nothing and cannot fail (I9), a refused operation
 * changes nothing (I10), nothing gets in from within (I11). That nothing awaits (I12) the types say: every operation
 * returns a number.
 *
 * Two lists are over unstable sources and two over one guest memory, whose regions come and go: what a list holds stays
 * what it was. Page tables are plain ones, with faults on demand, and real ones, which the walker of their hardware
 * checks for permissions and marks as written.
 */
import { assert, assertEquals } from "@std/assert";
import {
  Access,
  createPageList,
  EDEADLK,
  EFAULT,
  ENOENT,
  type Errno,
  GuestSource,
  IoAddressSpace,
  OK,
  type PageList,
  type Protection,
  READ,
} from "../../iommufd/mod.ts";
import { DirtyModel } from "./dirty_model.ts";
import { EventOrder } from "./event_order.ts";
import { EventLog, FaultPlan } from "./fault_plan.ts";
import { Intruder } from "./intruder.ts";
import { type Backing, device, INDEXES, Model, type ModelArea } from "./model.ts";
import { PlainTable } from "./plain_table.ts";
import { contig, disc, PlannedBudget, ScriptedSource } from "./scripted_source.ts";
import { checkList, checkSpace } from "./world_checks.ts";
import { WorldPins } from "./world_pins.ts";
import { WorldRegions } from "./world_regions.ts";
import { asTable, entriesOf, HARDWARE, replaceReal } from "./world_tables.ts";

export interface WorldOptions {
  /** Runs in a batch and pages pinned at once. */
  readonly slots: number;
  readonly chunkPages: number;
  /** Pages that may be pinned; undefined for no budget at all. */
  readonly budgetPages?: number | undefined;
  /** Whether the accesses keep pins when asked to let go. */
  readonly isDeaf: readonly boolean[];
}

export class World {
  readonly log = new EventLog();
  readonly plan = new FaultPlan();
  readonly budget: PlannedBudget | null;
  readonly lists: PageList[] = [];
  readonly sources: (ScriptedSource | GuestSource)[] = [];
  readonly spaces: IoAddressSpace[] = [];
  readonly accesses: Access[] = [];
  readonly model: Model;
  readonly dirty: DirtyModel;
  readonly regions: WorldRegions;
  readonly users: WorldPins;
  readonly intruder: Intruder;
  readonly #order: EventOrder;
  #tableNumber = 0;

  constructor(options: WorldOptions) {
    const { log, plan } = this;
    this.model = new Model(options.budgetPages ?? Infinity);
    this.dirty = new DirtyModel(this.model);
    this.intruder = new Intruder(this);
    this.users = new WorldPins(this.model, plan, this.accesses, this.spaces, options.isDeaf);
    this.#order = new EventOrder(log);
    this.budget = options.budgetPages === undefined
      ? null
      : new PlannedBudget(options.budgetPages, plan, log);
    const runs = [
      ...contig(5, 1000),
      ...disc(6, 2000),
      ...contig(9, 3000),
      ...disc(4, 4000),
    ];
    const mixed = [...contig(8, 11_000), ...contig(4, 11_008), ...disc(12, 12_000)];
    const first = new ScriptedSource(runs, { log, plan });
    const second = new ScriptedSource(mixed, { log, plan, device: [8, 11], pinLimit: 3 });
    second.faultAt = 20;
    const guest = new GuestSource({ lastIndex: INDEXES - 1 });
    this.sources.push(first, second, guest, guest);
    first.onPin = () => this.intruder.getIn();
    second.onPin = () => this.intruder.getIn();
    const hole = Array.from({ length: INDEXES }, (_, index) => device(index));
    this.model.live.push(backingOf(first, -1), backingOf(second, 20), hole, hole);
    this.regions = new WorldRegions(guest, this.model, log, hole);
    this.regions.add(0, 6, 21_000);
    this.regions.add(7, 11, 21_007);
    this.regions.add(16, 23, 23_000);
    const batches = { slots: options.slots, chunkPages: options.chunkPages };
    for (const source of this.sources) {
      const writable = source !== second;
      const { budget } = this;
      this.lists.push(createPageList(source, { budget, writable, growth: plan, batches }));
    }
    for (let at = 0; at < 2; at++) {
      this.spaces.push(new IoAddressSpace({ growth: plan }));
      const onUnmap = (access: Access, firstPage: number, lastPage: number): void => {
        this.intruder.getIn();
        if (!options.isDeaf[at]) access.unpinAll(firstPage, lastPage);
      };
      const access = new Access({ onUnmap, growth: plan });
      assertEquals(access.attach(this.spaces[at]), OK);
      this.accesses.push(access);
    }
  }

  /** Maps; expects what the model says, or any refusal if a planned fault hit. */
  map(
    space: number,
    first: number,
    count: number,
    list: number,
    index: number,
    protection: Protection,
  ): void {
    const area: ModelArea = { first, last: first + count - 1, list, index, protection };
    const expected = this.model.expectMap(space, area);
    const errno = this.spaces[space].map(first, area.last, this.lists[list], index, protection);
    if (this.plan.agrees(`map ${first}+${count} of ${list} at ${index}`, errno, expected)) {
      this.model.areas[space].push(area);
    }
  }

  /** Maps at an address of the engine's choice. */
  mapAuto(space: number, count: number, list: number, index: number): void {
    const area: ModelArea = { first: -1, last: -1, list, index, protection: READ };
    const expected = index + count > INDEXES
      ? EFAULT
      : this.model.expectHold(space, [[list, index, index + count - 1]]);
    const engine = this.spaces[space];
    const errno = engine.mapAuto(count, this.lists[list], index, READ);
    if (!this.plan.agrees("map at automatic address", errno, expected)) return;
    area.first = engine.mappedPage;
    area.last = area.first + count - 1;
    assert(area.first > 0, "address 0 was given out");
    assert(
      !this.model.areas[space].some((other) =>
        other.first <= area.last && other.last >= area.first
      ),
    );
    this.model.areas[space].push(area);
  }

  /** Copies a range to another place. */
  copy(
    from: number,
    first: number,
    count: number,
    to: number,
    toPage: number,
    protection: Protection,
  ): void {
    const last = first + count - 1;
    const fresh: ModelArea[] = [];
    let expected: Errno = OK;
    for (let page = first; page <= last && expected === OK;) {
      const source = this.model.areaAt(from, page);
      if (source === undefined) {
        expected = ENOENT;
        break;
      }
      const end = Math.min(last, source.last);
      fresh.push({
        first: page - first + toPage,
        last: end - first + toPage,
        list: source.list,
        index: source.index + page - source.first,
        protection,
      });
      page = end + 1;
    }
    const before = this.model.areas[to];
    if (expected === OK) {
      for (const area of fresh) {
        expected = this.model.expectMap(to, area);
        if (expected !== OK) break;
        this.model.areas[to] = [...this.model.areas[to], area];
      }
    }
    this.model.areas[to] = before;
    const errno = this.spaces[to].copy(this.spaces[from], first, last, toPage, protection);
    if (this.plan.agrees(`copy ${first}+${count}`, errno, expected)) {
      for (const area of fresh) this.model.areas[to].push(area);
    }
  }

  /** Unmaps: nothing of the plan may be reached, since removing needs nothing that can fail. */
  unmap(space: number, first: number, count: number): void {
    const last = first + count - 1;
    const touched = this.model.areas[space].filter((area) =>
      area.first <= last && area.last >= first
    );
    let expected: Errno = OK;
    if (touched.some((area) => area.first < first || area.last > last)) expected = ENOENT;
    else if (touched.some((area) => this.model.isAccessed(area))) {
      const from = Math.min(...touched.map((area) => area.first));
      const to = Math.max(...touched.map((area) => area.last));
      this.users.ask(space, from, to);
      if (touched.some((area) => this.model.isAccessed(area))) expected = EDEADLK;
    }
    const engine = this.spaces[space];
    const errno = this.plan.without(() => engine.unmap(first, last));
    assertEquals(errno, expected, `unmap ${first}+${count}`);
    if (errno !== OK) {
      assertEquals([engine.removedMappings, engine.removedPages], [0, 0]);
      return;
    }
    const pages = touched.reduce((sum, area) => sum + area.last - area.first + 1, 0);
    assertEquals([engine.removedMappings, engine.removedPages], [touched.length, pages]);
    this.model.areas[space] = this.model.areas[space].filter((area) => !touched.includes(area));
    for (const area of touched) this.dirty.unmapped(space, area);
  }

  /** Starts or stops recording writes. */
  track(space: number, isOn: boolean): void {
    this.plan.arm();
    this.dirty.track(this.spaces[space], space, isOn);
  }

  /** Attaches a plain page table, or a real one if there is one left. */
  addTable(space: number, isReal: boolean): void {
    if (this.model.tables[space].length === 3) return;
    const engine = this.spaces[space];
    const real = HARDWARE.find((bench) => !this.model.tables.flat().includes(bench));
    const table = isReal && real !== undefined ? real : this.#plainTable();
    let expected: Errno = OK;
    if (this.model.tables[space].length === 0) {
      const areas = this.model.areas[space].toSorted((one, other) => one.first - other.first);
      const holds: [number, number, number][] = [];
      this.model.tables[space].push(table);
      this.model.areas[space] = [];
      for (const area of areas) {
        holds.push([area.list, area.index, area.index + area.last - area.first]);
        expected = this.model.expectHold(space, [holds[holds.length - 1]]);
        if (expected !== OK) break;
        this.model.areas[space].push(area);
      }
      this.model.areas[space] = areas;
      this.model.tables[space].pop();
    }
    const errno = engine.addPageTable(asTable(table));
    if (this.plan.agrees("add page table", errno, expected)) this.model.tables[space].push(table);
    else assertEquals(entriesOf(table), 0, "a refused page table is left filled");
  }

  removeTable(space: number, which: number): void {
    const tables = this.model.tables[space];
    if (tables.length === 0) return;
    const table = tables[which % tables.length];
    const pinCalls = this.#pinCalls();
    assertEquals(this.plan.without(() => this.spaces[space].removePageTable(asTable(table))), OK);
    assertEquals(this.#pinCalls(), pinCalls, "a leaving page table pinned something");
    assertEquals(entriesOf(table), 0);
    tables.splice(tables.indexOf(table), 1);
    this.dirty.detached(table);
  }

  /** Compares everything with the model. */
  check(): void {
    this.model.note();
    this.#order.check();
    let charged = 0;
    for (let list = 0; list < this.lists.length; list++) {
      charged += checkList(this.model, list, this.lists[list], this.sources[list]);
    }
    if (this.budget !== null) assertEquals(this.budget.chargedPages, charged, "I6: charges");
    for (let space = 0; space < this.spaces.length; space++) {
      checkSpace(this.model, space, this.spaces[space], this.lists);
    }
  }

  /** Takes everything down; nothing may be left. */
  close(): void {
    for (let at = 0; at < this.accesses.length; at++) {
      while (this.model.pins[at].length > 0) this.users.unpin(at, 0);
      assertEquals(this.accesses[at].detach(), OK);
    }
    for (let space = 0; space < this.spaces.length; space++) {
      while (this.model.tables[space].length > 1) this.removeTable(space, 0);
      if (this.model.areas[space].length % 2 === 0) {
        while (this.model.tables[space].length > 0) this.removeTable(space, 0);
      }
      this.unmap(space, 0, 2000);
      while (this.model.tables[space].length > 0) this.removeTable(space, 0);
      assertEquals(this.spaces[space].destroy(), OK);
    }
    this.check();
    for (const list of this.lists) list.release();
    assertEquals(this.regions.guest.retired, []);
  }

  /** After a failed history: what it has left in real page tables must not reach the next one. */
  discard(): void {
    replaceReal(this.model.tables.flat());
  }

  #plainTable(): PlainTable {
    const name = `table ${this.#tableNumber++}`;
    const table = new PlainTable({ name, log: this.log, plan: this.plan });
    table.onChange = () => this.intruder.getIn();
    table.onFlush = () => this.intruder.getIn();
    return table;
  }

  #pinCalls(): number {
    return this.sources.reduce(
      (sum, source) => sum + (source instanceof ScriptedSource ? source.pinCalls : 0),
      0,
    );
  }
}

function backingOf(source: ScriptedSource, faultAt: number): Backing[] {
  return source.frames.map((frame, index) => ({
    frame,
    isDevice: source.isDevice(index),
    isFaulty: index === faultAt,
  }));
}
