/**
 * The engine next to a model of it, for histories of random operations.
 *
 * The model knows areas, page tables, accesses and what each source holds as plain lists and answers what every
 * operation must answer. After every step everything that can be seen of the engine is compared with what the model
 * says, which are the invariants: a page is pinned once if anyone holds it (I1), the store holds what accesses hold
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
  DirtyReader,
  EBUSY,
  EDEADLK,
  EEXIST,
  EFAULT,
  EINVAL,
  ENOENT,
  ENOMEM,
  EPERM,
  type Errno,
  type GuestRegion,
  GuestSource,
  IoAddressSpace,
  MMIO,
  OK,
  type PageList,
  type PageTable,
  type Protection,
  READ,
  setDirtyTracking,
  WRITE,
} from "../../iommufd/mod.ts";
import { WalkResult } from "../../pagetable/mod.ts";
import { type Bench, ENDPOINT, makeBench, SUBJECTS } from "../pagetable/formats_under_test.ts";
import { EventLog, FaultPlan } from "./fault_plan.ts";
import { PlainTable } from "./plain_table.ts";
import { contig, disc, PlannedBudget, ScriptedSource } from "./scripted_source.ts";

const INDEXES = 24;

/** Real page tables, reused from world to world, since each leaves them empty. */
const REAL = ["vtd-ss, 4 levels, scalable mode", "amdv1, 6 levels"];
const HARDWARE: Bench[] = REAL.map(makeReal);

function makeReal(name: string): Bench {
  return makeBench(SUBJECTS.find((subject) => subject.name === name)!);
}

/** What stands behind an index. */
interface Backing {
  readonly frame: number;
  readonly isDevice: boolean;
  readonly isFaulty: boolean;
  /** The region of guest memory it is of, if any. */
  readonly region?: GuestRegion;
}

interface ModelArea {
  first: number;
  last: number;
  list: number;
  index: number;
  protection: Protection;
}

interface ModelPart {
  list: number;
  first: number;
  last: number;
  area: ModelArea;
}

interface ModelPin {
  first: number;
  last: number;
  parts: ModelPart[];
}

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
  readonly guest: GuestSource;
  /** The model. */
  readonly areas: ModelArea[][] = [[], []];
  readonly tables: (PlainTable | Bench)[][] = [[], []];
  /** What each index of each source is now. */
  readonly #live: Backing[][] = [];
  /** What each index that a list holds was when it was first held. */
  readonly #was: (Backing | undefined)[][] = [[], [], [], []];
  /** Regions that were removed, and whether their memory has been released. */
  readonly #removed = new Map<GuestRegion, boolean>();
  #regionNumber = 0;
  /** Pages written through each page table while it tracked. */
  readonly #dirty = new Map<PageTable, Set<number>>();
  readonly #tracking = new Set<PageTable>();
  readonly pins: ModelPin[][] = [[], []];
  readonly homes: number[] = [0, 1];
  readonly #isDeaf: readonly boolean[];
  #checkedEvents = 0;
  readonly #mapped = new Map<number, number>();
  readonly #pinned = new Map<number, number>();
  /** Frames unmapped and not flushed yet, by page table. */
  readonly #cached = new Map<string, Set<number>>();
  #tableNumber = 0;
  /** How often something tried to get in in the middle of an operation, and was refused. */
  reentries = 0;
  #isInside = false;
  readonly #walk = new WalkResult();

  constructor(options: WorldOptions) {
    this.#isDeaf = options.isDeaf;
    const { log, plan } = this;
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
    this.guest = new GuestSource({ lastIndex: INDEXES - 1 });
    this.sources.push(first, second, this.guest, this.guest);
    first.onPin = () => this.#getIn();
    second.onPin = () => this.#getIn();
    const hole = Array.from({ length: INDEXES }, (_, index) => device(index));
    this.#live.push(backingOf(first, -1), backingOf(second, 20), hole, hole);
    this.#addRegion(0, 6, 21_000);
    this.#addRegion(7, 11, 21_007);
    this.#addRegion(16, 23, 23_000);
    const batches = { slots: options.slots, chunkPages: options.chunkPages };
    for (const source of this.sources) {
      const writable = source !== second;
      const { budget } = this;
      this.lists.push(createPageList(source, { budget, writable, growth: plan, batches }));
    }
    for (let at = 0; at < 2; at++) {
      this.spaces.push(new IoAddressSpace({ growth: plan }));
      const onUnmap = (access: Access, firstPage: number, lastPage: number): void => {
        this.#getIn();
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
    const expected = this.#expectMap(space, area);
    const errno = this.spaces[space].map(first, area.last, this.lists[list], index, protection);
    if (this.#agree(`map ${first}+${count} of ${list} at ${index}`, errno, expected)) {
      this.#insert(space, area);
    }
  }

  /** Maps at an address of the engine's choice. */
  mapAuto(space: number, count: number, list: number, index: number): void {
    const area: ModelArea = { first: -1, last: -1, list, index, protection: READ };
    const expected = index + count > INDEXES
      ? EFAULT
      : this.#expectHold(space, [[list, index, index + count - 1]]);
    const engine = this.spaces[space];
    const errno = engine.mapAuto(count, this.lists[list], index, READ);
    if (!this.#agree("map at automatic address", errno, expected)) return;
    area.first = engine.mappedPage;
    area.last = area.first + count - 1;
    assert(area.first > 0, "address 0 was given out");
    assert(
      !this.areas[space].some((other) => other.first <= area.last && other.last >= area.first),
    );
    this.#insert(space, area);
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
      const source = this.#areaAt(from, page);
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
    const before = this.areas[to];
    if (expected === OK) {
      for (const area of fresh) {
        expected = this.#expectMap(to, area);
        if (expected !== OK) break;
        this.areas[to] = [...this.areas[to], area];
      }
    }
    this.areas[to] = before;
    const errno = this.spaces[to].copy(this.spaces[from], first, last, toPage, protection);
    if (this.#agree(`copy ${first}+${count}`, errno, expected)) {
      for (const area of fresh) this.#insert(to, area);
    }
  }

  /** Unmaps: nothing of the plan may be reached, since removing needs nothing that can fail. */
  unmap(space: number, first: number, count: number): void {
    const last = first + count - 1;
    const touched = this.areas[space].filter((area) => area.first <= last && area.last >= first);
    let expected: Errno = OK;
    if (touched.some((area) => area.first < first || area.last > last)) expected = ENOENT;
    else if (touched.some((area) => this.#isAccessed(area))) {
      const from = Math.min(...touched.map((area) => area.first));
      const to = Math.max(...touched.map((area) => area.last));
      for (let at = 0; at < this.accesses.length; at++) {
        if (this.homes[at] !== space) continue;
        if (!this.#isDeaf[at]) {
          this.pins[at] = this.pins[at].filter((pin) => pin.first > to || pin.last < from);
        }
      }
      if (touched.some((area) => this.#isAccessed(area))) expected = EDEADLK;
    }
    const engine = this.spaces[space];
    const errno = this.#withoutFaults(() => engine.unmap(first, last));
    assertEquals(errno, expected, `unmap ${first}+${count}`);
    if (errno !== OK) {
      assertEquals([engine.removedMappings, engine.removedPages], [0, 0]);
      return;
    }
    const pages = touched.reduce((sum, area) => sum + area.last - area.first + 1, 0);
    assertEquals([engine.removedMappings, engine.removedPages], [touched.length, pages]);
    this.areas[space] = this.areas[space].filter((area) => !touched.includes(area));
    for (const table of this.tables[space]) {
      const dirty = this.#dirty.get(asTable(table));
      for (const area of touched) {
        for (let page = area.first; page <= area.last; page++) dirty?.delete(page);
      }
    }
  }

  /** Removes a region of guest memory, if there is one, or adds one where there is none. */
  swapRegion(isRemoval: boolean, which: number, first: number, count: number): void {
    const { guest } = this;
    if (isRemoval) {
      if (guest.regions.length === 0) return;
      const region = guest.regions[which % guest.regions.length];
      const isHeld = this.#was.some((list) => list.some((page) => page?.region === region));
      this.#removed.set(region, false);
      assertEquals(guest.removeRegion(region), !isHeld, "whether a region is gone at once");
      for (let index = region.firstIndex; index <= region.lastIndex; index++) {
        this.#live[2][index] = device(index);
      }
      return;
    }
    const last = Math.min(first + count - 1, INDEXES - 1);
    const isFree = this.#live[2].slice(first, last + 1).every((page) => page.isDevice);
    if (isFree) this.#addRegion(first, last, 30_000 + 1000 * this.#regionNumber++ + first);
  }

  /** Starts or stops recording writes. */
  track(space: number, isOn: boolean): void {
    const tables = this.tables[space];
    this.plan.arm();
    assertEquals(setDirtyTracking(this.spaces[space], isOn), tables.length === 0 ? EINVAL : OK);
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
    const tables = this.tables[space];
    if (tables.length === 0) return;
    const each = tables[which % tables.length];
    const table = asTable(each);
    const area = this.#areaAt(space, page);
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
    const tables = this.tables[space];
    if (tables.length === 0) return;
    const table = asTable(tables[which % tables.length]);
    if (!this.#tracking.has(table)) return;
    const wanted = this.#dirty.get(table)!;
    const bitmap = new Uint8Array(128);
    assertEquals(new DirtyReader().read(table, 0, 1023, 0, bitmap, true), OK);
    const isMarked = (page: number): boolean => (bitmap[page >> 3] & (1 << (page & 7))) !== 0;
    const written = [...wanted].map((page) => this.#areaAt(space, page));
    for (let page = 0; page < 1024; page++) {
      if (wanted.has(page)) assert(isMarked(page), `page ${page} was written`);
      // A leaf may span several pages, but not several mappings.
      else if (isMarked(page)) assert(written.includes(this.#areaAt(space, page)), `page ${page}`);
    }
    wanted.clear();
    bitmap.fill(0);
    new DirtyReader().read(table, 0, 1023, 0, bitmap, false);
    assert(bitmap.every((byte) => byte === 0), "what was read is not clean");
  }

  /** Attaches a plain page table, or a real one if there is one left. */
  addTable(space: number, isReal: boolean): void {
    if (this.tables[space].length === 3) return;
    const engine = this.spaces[space];
    const real = HARDWARE.find((bench) => !this.tables.flat().includes(bench));
    const table = isReal && real !== undefined ? real : this.#plainTable();
    let expected: Errno = OK;
    if (this.tables[space].length === 0) {
      const areas = this.areas[space].toSorted((one, other) => one.first - other.first);
      const holds: [number, number, number][] = [];
      this.tables[space].push(table);
      this.areas[space] = [];
      for (const area of areas) {
        holds.push([area.list, area.index, area.index + area.last - area.first]);
        expected = this.#expectHold(space, [holds[holds.length - 1]]);
        if (expected !== OK) break;
        this.areas[space].push(area);
      }
      this.areas[space] = areas;
      this.tables[space].pop();
    }
    const errno = engine.addPageTable(asTable(table));
    if (this.#agree("add page table", errno, expected)) this.tables[space].push(table);
    else assertEquals(entriesOf(table), 0, "a refused page table is left filled");
  }

  removeTable(space: number, which: number): void {
    const tables = this.tables[space];
    if (tables.length === 0) return;
    const table = tables[which % tables.length];
    const pinCalls = this.#pinCalls();
    assertEquals(this.#withoutFaults(() => this.spaces[space].removePageTable(asTable(table))), OK);
    assertEquals(this.#pinCalls(), pinCalls, "a leaving page table pinned something");
    assertEquals(entriesOf(table), 0);
    tables.splice(tables.indexOf(table), 1);
    this.#dirty.delete(asTable(table));
    if (this.#tracking.delete(asTable(table))) asTable(table).setDirtyTracking(false);
  }

  pin(access: number, first: number, count: number, isWrite: boolean): void {
    const last = first + count - 1;
    const space = this.homes[access];
    const pin: ModelPin = { first, last, parts: [] };
    let expected: Errno = OK;
    this.pins[access].push(pin);
    for (let page = first; page <= last && expected === OK;) {
      const area = this.#areaAt(space, page);
      if (area === undefined) expected = ENOENT;
      else if ((area.protection & (isWrite ? WRITE : READ)) === 0) expected = EPERM;
      else {
        const end = Math.min(last, area.last);
        const from = area.index + page - area.first;
        const to = from + (end - page);
        if (isWrite && area.list === 1) expected = EPERM;
        else if (this.#hasAccess(area.list, from, to)) expected = OK;
        else if (this.#slice(area.list, from, to).some((page) => page.isDevice)) expected = EINVAL;
        else expected = this.#expectHold(-1, [[area.list, from, to]]);
        if (expected === OK) pin.parts.push({ list: area.list, first: from, last: to, area });
        page = end + 1;
      }
    }
    this.pins[access].pop();
    const frames = new Float64Array(count).fill(-7);
    const errno = this.accesses[access].pin(first, last, frames, isWrite);
    if (!this.#agree(`pin ${first}+${count}`, errno, expected)) return;
    this.pins[access].push(pin);
    const wanted = pin.parts.flatMap((part) =>
      this.#slice(part.list, part.first, part.last).map((page) => page.frame)
    );
    assertEquals([...frames], wanted);
  }

  unpin(access: number, which: number): void {
    const pins = this.pins[access];
    if (pins.length === 0) {
      assertEquals(this.accesses[access].unpin(which, which + 1), ENOENT);
      return;
    }
    const pin = pins[which % pins.length];
    const engine = this.accesses[access];
    assertEquals(this.#withoutFaults(() => engine.unpin(pin.first, pin.last)), OK);
    pins.splice(pins.indexOf(pin), 1);
  }

  /** Moves an access to the other space, which drops its pins first unless it is deaf. */
  moveAccess(access: number): void {
    const to = 1 - this.homes[access];
    const stays = this.#isDeaf[access] && this.pins[access].length > 0;
    const errno = this.#withoutFaults(() => this.accesses[access].replace(this.spaces[to]));
    assertEquals(errno, stays ? EDEADLK : OK);
    if (stays) return;
    this.pins[access] = [];
    this.homes[access] = to;
  }

  /** Compares everything with the model. */
  check(): void {
    this.#note();
    this.#checkEvents();
    let charged = 0;
    for (let list = 0; list < this.lists.length; list++) charged += this.#checkList(list);
    if (this.budget !== null) assertEquals(this.budget.chargedPages, charged, "I6: charges");
    for (let space = 0; space < this.spaces.length; space++) this.#checkSpace(space);
    for (const [region, isReleased] of this.#removed) {
      const isHeld = this.#was.some((list) => list.some((page) => page?.region === region));
      assertEquals([isReleased, this.guest.retired.includes(region)], [!isHeld, isHeld], "regions");
    }
  }

  /** Takes everything down; nothing may be left. */
  close(): void {
    for (let at = 0; at < this.accesses.length; at++) {
      while (this.pins[at].length > 0) this.unpin(at, 0);
      assertEquals(this.accesses[at].detach(), OK);
    }
    for (let space = 0; space < this.spaces.length; space++) {
      while (this.tables[space].length > 1) this.removeTable(space, 0);
      if (this.areas[space].length % 2 === 0) {
        while (this.tables[space].length > 0) this.removeTable(space, 0);
      }
      this.unmap(space, 0, 2000);
      while (this.tables[space].length > 0) this.removeTable(space, 0);
      assertEquals(this.spaces[space].destroy(), OK);
    }
    this.check();
    for (const list of this.lists) list.release();
    assertEquals(this.guest.retired, []);
  }

  /** After a failed history: what it has left in real page tables must not reach the next one. */
  discard(): void {
    REAL.forEach((name, at) => {
      if (this.tables.flat().includes(HARDWARE[at])) HARDWARE[at] = makeReal(name);
    });
  }

  /** OK and expected OK; or both refused; or a fault of the plan refused. Returns whether it was done. */
  #agree(what: string, errno: Errno, expected: Errno): boolean {
    if (this.plan.hasFired) {
      assert(errno !== OK, `${what}: done in spite of a failed ${this.plan.fired}`);
      return false;
    }
    assertEquals(errno, expected, what);
    return errno === OK;
  }

  #withoutFaults(act: () => Errno): Errno {
    const { hits } = this.plan;
    const errno = act();
    assertEquals(this.plan.hits, hits, "I9: something that can fail was used");
    return errno;
  }

  #expectMap(space: number, area: ModelArea): Errno {
    if ((area.protection & (READ | WRITE)) === 0) return EINVAL;
    if ((area.protection & WRITE) !== 0 && area.list === 1) return EPERM;
    const lastIndex = area.index + area.last - area.first;
    if (lastIndex >= INDEXES) return EFAULT;
    const isTaken = this.areas[space].some((other) =>
      other.first <= area.last && other.last >= area.first
    );
    if (isTaken) return EEXIST;
    return this.#expectHold(space, [[area.list, area.index, lastIndex]]);
  }

  /** What holding ranges of lists must answer; space -1 stands for an access. */
  #expectHold(space: number, ranges: readonly [number, number, number][]): Errno {
    if (space >= 0 && this.tables[space].length === 0) return OK;
    for (const [list, first, last] of ranges) {
      const held = this.#held(list);
      const fresh: number[] = [];
      for (let index = first; index <= last; index++) {
        if (!held[index] && !this.#backing(list, index).isDevice) fresh.push(index);
      }
      if (this.budget !== null) {
        let charged = 0;
        for (let at = 0; at < this.lists.length; at++) charged += this.#pinnedOf(at);
        if (charged + fresh.length > this.budget.limitPages) return ENOMEM;
      }
      if (fresh.some((index) => this.#backing(list, index).isFaulty)) return EFAULT;
    }
    return OK;
  }

  #insert(space: number, area: ModelArea): void {
    this.areas[space].push(area);
  }

  #areaAt(space: number, page: number): ModelArea | undefined {
    return this.areas[space].find((area) => area.first <= page && area.last >= page);
  }

  #isAccessed(area: ModelArea): boolean {
    return this.pins.some((pins) =>
      pins.some((pin) => pin.parts.some((part) => part.area === area))
    );
  }

  #hasAccess(list: number, first: number, last: number): boolean {
    return this.pins.some((pins) =>
      pins.some((pin) =>
        pin.parts.some((part) => part.list === list && part.first === first && part.last === last)
      )
    );
  }

  #slice(list: number, first: number, last: number): Backing[] {
    return Array.from({ length: last - first + 1 }, (_, at) => this.#backing(list, first + at));
  }

  /** What an index is for a list: what it was when the list began to hold it, else what it is now. */
  #backing(list: number, index: number): Backing {
    return this.#was[list][index] ?? this.#live[list][index];
  }

  /** After an operation: what is held from now on, and what no more. */
  #note(): void {
    for (let list = 0; list < this.lists.length; list++) {
      this.#held(list).forEach((isHeld, index) => {
        if (!isHeld) this.#was[list][index] = undefined;
        else this.#was[list][index] ??= this.#live[list][index];
      });
    }
  }

  #addRegion(first: number, last: number, firstFrame: number): void {
    const onReleased = (region: GuestRegion): void => {
      assert(this.#removed.get(region) === false, "a region is released twice");
      this.#removed.set(region, true);
      const count = last - first + 1;
      this.log.add({ kind: "release", who: "guest", first: firstFrame, count });
    };
    const region = this.guest.addRegion(first, last, { firstFrame, onReleased });
    for (let index = first; index <= last; index++) {
      const frame = firstFrame + index - first;
      this.#live[2][index] = { frame, isDevice: false, isFaulty: false, region };
    }
  }

  #plainTable(): PlainTable {
    const name = `table ${this.#tableNumber++}`;
    const table = new PlainTable({ name, log: this.log, plan: this.plan });
    table.onChange = () => this.#getIn();
    table.onFlush = () => this.#getIn();
    return table;
  }

  /** Tries one thing that must be refused, in the middle of an operation. */
  #getIn(): void {
    if (this.#isInside) return;
    this.#isInside = true;
    const hits = this.plan.hits;
    const tries = this.#tries();
    if (tries.length > 0) {
      const [what, act] = tries[this.reentries * 7919 % tries.length];
      assertEquals(act(), EBUSY, `I11: ${what} got in`);
      this.reentries++;
    }
    assertEquals(this.plan.hits, hits, "I11: what is refused reached something that can fail");
    this.#isInside = false;
  }

  /** What must be refused now. */
  #tries(): [string, () => Errno][] {
    const tries: [string, () => Errno][] = [];
    const { lists } = this;
    for (let space = 0; space < 2; space++) {
      const engine = this.spaces[space];
      if (engine.isBusy) {
        tries.push(
          ["unmap", () => engine.unmap(0, 1000)],
          ["map", () => engine.map(900, 900, lists[0], 0, READ)],
          ["mapAuto", () => engine.mapAuto(1, lists[2], 0, READ)],
          ["copy", () => engine.copy(engine, 0, 0, 900, READ)],
          ["addPageTable", () => engine.addPageTable(new PlainTable())],
          ["reserve", () => engine.reserve(900, 901, this)],
          ["unreserve", () => engine.unreserve(this)],
          ["allow", () => engine.allow([])],
          ["setLargePages", () => engine.setLargePages(true)],
          ["setDirtyTracking", () => setDirtyTracking(engine, true)],
        );
        for (const each of this.tables[space]) {
          tries.push(["removePageTable", () => engine.removePageTable(asTable(each))]);
        }
      } else {
        for (const list of lists) {
          if (!list.isBusy) continue;
          tries.push(["map of a busy list", () => engine.map(900, 900, list, 0, READ)]);
        }
        for (const area of this.areas[space]) {
          if (!lists[area.list].isBusy) continue;
          tries.push(["unmap of a busy list", () => engine.unmap(area.first, area.last)]);
          const isWrite = (area.protection & READ) === 0;
          for (const access of this.accesses) {
            if (access.space !== engine) continue;
            tries.push([
              "pin of a busy list",
              () => access.pin(area.first, area.first, null, isWrite),
            ]);
          }
        }
      }
    }
    for (let at = 0; at < this.accesses.length; at++) {
      const access = this.accesses[at];
      if (access.space?.isBusy === true) {
        tries.push(["pin", () => access.pin(0, 0, null, false)]);
        tries.push(["read", () => access.read(0, 0, new Uint8Array(1))]);
      }
      for (const pin of this.pins[at]) {
        const isBusy = pin.parts.some((part) => lists[part.list].refusesRemoval);
        if (isBusy) tries.push(["unpin", () => access.unpin(pin.first, pin.last)]);
      }
    }
    return tries;
  }

  #stored(list: number): boolean[] {
    const stored = new Array<boolean>(INDEXES).fill(false);
    for (const pins of this.pins) {
      for (const pin of pins) {
        for (const part of pin.parts) {
          if (part.list === list) stored.fill(true, part.first, part.last + 1);
        }
      }
    }
    return stored;
  }

  #held(list: number): boolean[] {
    const held = this.#stored(list);
    for (let space = 0; space < this.spaces.length; space++) {
      if (this.tables[space].length === 0) continue;
      for (const area of this.areas[space]) {
        if (area.list !== list) continue;
        held.fill(true, area.index, area.index + area.last - area.first + 1);
      }
    }
    return held;
  }

  #pinnedOf(list: number): number {
    const held = this.#held(list);
    return held.filter((isHeld, index) => isHeld && !this.#backing(list, index).isDevice).length;
  }

  #checkList(list: number): number {
    const engine = this.lists[list];
    const source = this.sources[list];
    const held = this.#held(list);
    const pinned = this.#pinnedOf(list);
    assertEquals(engine.pinnedPages, pinned, `pinned pages of list ${list}`);
    if (!(source instanceof GuestSource)) {
      assertEquals(source.pinnedFrames, pinned, `I1: pinned frames of list ${list}`);
      for (let index = 0; index < INDEXES; index++) {
        const { frame, isDevice } = this.#backing(list, index);
        const pins = held[index] && !isDevice ? 1 : 0;
        assertEquals(source.pins.get(frame) ?? 0, pins, `I1: pins of index ${index}`);
      }
    }
    const stored = this.#stored(list);
    for (let index = 0; index < INDEXES; index++) {
      const frame = stored[index] ? this.#backing(list, index).frame : -1;
      assertEquals(engine.store.runAt(index, index), frame, `I2: store at ${index}`);
    }
    if (engine.tier !== null) {
      let areas = 0;
      for (let space = 0; space < this.spaces.length; space++) {
        if (this.tables[space].length === 0) continue;
        areas += this.areas[space].filter((area) => area.list === list).length;
      }
      assertEquals(engine.tier.tree.count, areas, "I3: areas in the tree of the list");
    }
    const slices = this.areas.flat().filter((area) => area.list === list).length;
    assertEquals(engine.areas, slices, "areas of the list");
    return pinned;
  }

  #checkSpace(space: number): void {
    const engine = this.spaces[space];
    const areas = this.areas[space].toSorted((one, other) => one.first - other.first);
    const cursor = engine.mappings();
    let pages = 0;
    for (const area of areas) {
      assert(cursor.next(), "a mapping is missing");
      const shown = [cursor.first, cursor.last, cursor.index, cursor.protection];
      assertEquals(shown, [area.first, area.last, area.index, area.protection]);
      assert(cursor.list === this.lists[area.list], "a mapping has the wrong list");
      pages += area.last - area.first + 1;
    }
    assert(!cursor.next(), "I5: a mapping too many");
    assertEquals([engine.mappingCount, engine.pageCount], [areas.length, pages]);
    assertEquals(engine.tables.length, this.tables[space].length);
    for (const each of this.tables[space]) {
      assertEquals(entriesOf(each), pages, "I4: entries of a page table");
      for (const area of areas) {
        for (let page = area.first; page <= area.last; page++) {
          const { frame, isDevice } = this.#backing(area.list, area.index + page - area.first);
          const protection = isDevice ? area.protection | MMIO : area.protection;
          if (each instanceof PlainTable) {
            assertEquals(each.frameAt(page), frame, `I4: frame at ${page}`);
            assertEquals(each.protectionAt(page), protection, `I4: protection at ${page}`);
          } else this.#checkWalk(each, page, frame, area.protection);
        }
      }
    }
  }

  /** What the hardware makes of a page: the walker shares no code with what wrote the entry. */
  #checkWalk({ unit }: Bench, page: number, frame: number, protection: Protection): void {
    for (const access of [READ, WRITE]) {
      const isPermitted = (protection & access) !== 0;
      assertEquals(unit.walk(ENDPOINT, page, access, this.#walk), isPermitted, `walk of ${page}`);
      if (isPermitted) assertEquals(this.#walk.frame, frame, `I4: frame at ${page}`);
    }
  }

  /** I7: replays the log. */
  #checkEvents(): void {
    const events = this.log.events;
    for (; this.#checkedEvents < events.length; this.#checkedEvents++) {
      const event = events[this.#checkedEvents];
      if (event.kind === "map") {
        for (let at = 0; at < event.count; at++) bump(this.#mapped, event.frame! + at, 1);
      } else if (event.kind === "unmap") {
        bump(this.#mapped, event.frame!, -1);
        if (!this.#cached.has(event.who)) this.#cached.set(event.who, new Set());
        this.#cached.get(event.who)!.add(event.frame!);
      } else if (event.kind === "flush") this.#cached.delete(event.who);
      else if (event.kind === "pin") bump(this.#pinned, event.first, 1);
      else if (event.kind === "unpin") {
        bump(this.#pinned, event.first, -1);
        if (!this.#pinned.has(event.first)) this.#checkGone(event.first, "unpinned");
      } else if (event.kind === "release") {
        for (let at = 0; at < event.count; at++) this.#checkGone(event.first + at, "released");
      } else if (event.kind === "uncharge" && event.count > 0) {
        assertEquals(this.#cached.size, 0, "I7: pages let go before the flush");
      }
    }
    events.length = 0;
    this.#checkedEvents = 0;
  }

  #checkGone(frame: number, how: string): void {
    assert(!this.#mapped.has(frame), `I7: frame ${frame} ${how} while mapped`);
    const isCached = [...this.#cached.values()].some((frames) => frames.has(frame));
    assert(!isCached, `I7: frame ${frame} ${how} while cached`);
  }

  #pinCalls(): number {
    return this.sources.reduce(
      (sum, source) => sum + (source instanceof ScriptedSource ? source.pinCalls : 0),
      0,
    );
  }
}

function bump(counts: Map<number, number>, key: number, by: number): void {
  const count = (counts.get(key) ?? 0) + by;
  if (count === 0) counts.delete(key);
  else counts.set(key, count);
}

function backingOf(source: ScriptedSource, faultAt: number): Backing[] {
  return source.frames.map((frame, index) => ({
    frame,
    isDevice: source.isDevice(index),
    isFaulty: index === faultAt,
  }));
}

function device(index: number): Backing {
  return { frame: index, isDevice: true, isFaulty: false };
}

function asTable(table: PlainTable | Bench): PageTable {
  return table instanceof PlainTable ? table : table.table;
}

/** Pages mapped in a page table, of those that histories use. */
function entriesOf(table: PlainTable | Bench): number {
  if (table instanceof PlainTable) return table.entries.size;
  let pages = 0;
  for (let page = 0; page <= 1000; page = table.table.runLast + 1) {
    if (table.table.runAt(page, 1000) >= 0) pages += table.table.runLast - page + 1;
  }
  return pages;
}
