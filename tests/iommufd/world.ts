/**
 * The engine next to a model of it, for histories of random operations.
 *
 * The model knows areas, page tables, accesses and what each source holds as plain lists and answers what every
 * operation must answer. After every step everything that can be seen of the engine is compared with what the model
 * says, which are the invariants: a page is pinned once if anyone holds it (I1), the store holds what accesses hold
 * (I2), areas are in the list's tree if and only if their space has a page table (I3), all page tables of a space are
 * equal (I4), nothing half-built is left (I5), what is pinned is charged (I6), a frame is unmapped everywhere before its
 * last unpin (I7, from the event log), no unmap splits a run (I8, the plain table throws), unmapping, detaching and
 * unpinning allocate nothing and cannot fail (I9), a refused operation changes nothing (I10), nothing gets in from
 * within (I11). That nothing awaits (I12) the types say: every operation returns a number.
 */
import { assert, assertEquals } from "@std/assert";
import {
  Access,
  createPageList,
  EBUSY,
  EDEADLK,
  EEXIST,
  EFAULT,
  EINVAL,
  ENOENT,
  ENOMEM,
  EPERM,
  type Errno,
  GuestSource,
  IoAddressSpace,
  MMIO,
  OK,
  type PageList,
  type Protection,
  READ,
  WRITE,
} from "../../iommufd/mod.ts";
import { EventLog, FaultPlan } from "./fault_plan.ts";
import { PlainTable } from "./plain_table.ts";
import { contig, disc, PlannedBudget, ScriptedSource } from "./scripted_source.ts";

const INDEXES = 24;

/** What stands behind an index. */
interface Backing {
  readonly frame: number;
  readonly isDevice: boolean;
  readonly isFaulty: boolean;
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
  readonly backing: Backing[][] = [];
  /** The model. */
  readonly areas: ModelArea[][] = [[], []];
  readonly tables: PlainTable[][] = [[], []];
  readonly pins: ModelPin[][] = [[], []];
  readonly homes: number[] = [0, 1];
  readonly #isDeaf: readonly boolean[];
  #checkedEvents = 0;
  readonly #mapped = new Map<number, number>();
  readonly #pinned = new Map<number, number>();
  /** Frames unmapped since the last chance to drop cached translations. */
  readonly #cached = new Set<number>();
  #tableNumber = 0;
  /** A page table tries to change its space in the middle of an operation, and must be refused. */
  reentries = 0;

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
    const guest = new GuestSource({ lastIndex: INDEXES - 1 });
    guest.addRegion(0, 6, { firstFrame: 21_000 });
    guest.addRegion(7, 11, { firstFrame: 21_007 });
    guest.addRegion(16, 23, { firstFrame: 23_000 });
    this.sources.push(first, second, guest);
    const batches = { slots: options.slots, chunkPages: options.chunkPages };
    for (const source of this.sources) {
      const writable = source !== second;
      const { budget } = this;
      this.lists.push(createPageList(source, { budget, writable, growth: plan, batches }));
    }
    this.backing.push(backingOf(first, -1), backingOf(second, 20), guestBacking());
    for (let at = 0; at < 2; at++) {
      this.spaces.push(new IoAddressSpace({ growth: plan }));
      const onUnmap = (access: Access, firstPage: number, lastPage: number): void => {
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
  }

  addTable(space: number): void {
    if (this.tables[space].length === 3) return;
    const table = new PlainTable({
      name: `table ${this.#tableNumber++}`,
      log: this.log,
      plan: this.plan,
    });
    const engine = this.spaces[space];
    table.onChange = (): void => {
      assertEquals(engine.unmap(0, 1000), EBUSY);
      assertEquals(engine.map(900, 900, this.lists[0], 0, READ), EBUSY);
      this.reentries++;
    };
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
    const errno = engine.addPageTable(table);
    if (this.#agree("add page table", errno, expected)) this.tables[space].push(table);
    else assertEquals(table.entries.size, 0, "a refused page table is left filled");
  }

  removeTable(space: number, which: number): void {
    const tables = this.tables[space];
    if (tables.length === 0) return;
    const table = tables[which % tables.length];
    const pinCalls = this.#pinCalls();
    assertEquals(this.#withoutFaults(() => this.spaces[space].removePageTable(table)), OK);
    assertEquals(this.#pinCalls(), pinCalls, "a leaving page table pinned something");
    assertEquals(table.entries.size, 0);
    tables.splice(tables.indexOf(table), 1);
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
    this.#checkEvents();
    let charged = 0;
    for (let list = 0; list < this.lists.length; list++) charged += this.#checkList(list);
    if (this.budget !== null) assertEquals(this.budget.chargedPages, charged, "I6: charges");
    for (let space = 0; space < this.spaces.length; space++) this.#checkSpace(space);
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
        if (!held[index] && !this.backing[list][index].isDevice) fresh.push(index);
      }
      if (this.budget !== null) {
        let charged = 0;
        for (let at = 0; at < this.lists.length; at++) charged += this.#pinnedOf(at);
        if (charged + fresh.length > this.budget.limitPages) return ENOMEM;
      }
      if (fresh.some((index) => this.backing[list][index].isFaulty)) return EFAULT;
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
    return this.backing[list].slice(first, last + 1);
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
    return held.filter((isHeld, index) => isHeld && !this.backing[list][index].isDevice).length;
  }

  #checkList(list: number): number {
    const engine = this.lists[list];
    const source = this.sources[list];
    const backing = this.backing[list];
    const held = this.#held(list);
    const pinned = this.#pinnedOf(list);
    assertEquals(engine.pinnedPages, pinned, `pinned pages of list ${list}`);
    if (!(source instanceof GuestSource)) {
      assertEquals(source.pinnedFrames, pinned, `I1: pinned frames of list ${list}`);
      for (let index = 0; index < INDEXES; index++) {
        const pins = held[index] && !backing[index].isDevice ? 1 : 0;
        assertEquals(
          source.pins.get(backing[index].frame) ?? 0,
          pins,
          `I1: pins of index ${index}`,
        );
      }
    }
    if (engine.tier !== null) {
      const stored = this.#stored(list);
      for (let index = 0; index < INDEXES; index++) {
        const frame = stored[index] ? backing[index].frame : -1;
        assertEquals(engine.store.runAt(index, index), frame, `I2: store at ${index}`);
      }
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
    for (const table of this.tables[space]) {
      assertEquals(table.entries.size, pages, `I4: entries of ${table.name}`);
      for (const area of areas) {
        for (let page = area.first; page <= area.last; page++) {
          const backing = this.backing[area.list][area.index + page - area.first];
          const protection = backing.isDevice ? area.protection | MMIO : area.protection;
          assertEquals(table.frameAt(page), backing.frame, `I4: frame at ${page}`);
          assertEquals(table.protectionAt(page), protection, `I4: protection at ${page}`);
        }
      }
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
        this.#cached.add(event.frame!);
      } else if (event.kind === "flush") this.#cached.clear();
      else if (event.kind === "pin") bump(this.#pinned, event.first, 1);
      else if (event.kind === "unpin") {
        bump(this.#pinned, event.first, -1);
        if (!this.#pinned.has(event.first)) {
          assert(!this.#mapped.has(event.first), `I7: frame ${event.first} unpinned while mapped`);
          assert(!this.#cached.has(event.first), `I7: frame ${event.first} unpinned while cached`);
        }
      }
    }
    events.length = 0;
    this.#checkedEvents = 0;
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

function guestBacking(): Backing[] {
  return Array.from({ length: INDEXES }, (_, index) => ({
    frame: index < 12 ? 21_000 + index : index < 16 ? index : 23_000 + index - 16,
    isDevice: index >= 12 && index < 16,
    isFaulty: false,
  }));
}
