/**
 * While an operation runs, everything that page tables, sources, flushes and unmap notices call back into and that
 * touches the same list is refused with EBUSY and changes nothing: every operation under way with every call from
 * within, over a stable and an unstable source, for two spaces and two accesses that share a list.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  Access,
  createPageList,
  EBUSY,
  type Errno,
  type GuestRegion,
  GuestSource,
  IoAddressSpace,
  OK,
  PageList,
  PinBudget,
  READ,
  setDirtyTracking,
  type SourceRegion,
  WRITE,
} from "../../iommufd/mod.ts";
import { PlainTable } from "./plain_table.ts";
import { disc, ScriptedSource } from "./scripted_source.ts";

const RW = READ | WRITE;

/** Guest memory that can be got into while its bytes are read. */
class OpenGuest extends GuestSource {
  onPin: (() => void) | null = null;

  override moveBytes(
    region: SourceRegion,
    index: number,
    offset: number,
    bytes: Uint8Array,
    isWrite: boolean,
  ): Errno {
    this.onPin?.();
    return super.moveBytes(region, index, offset, bytes, isWrite);
  }
}

/** Two spaces and two accesses over one list, and a third space over another that nothing here touches. */
class Scene {
  readonly guest = new OpenGuest();
  readonly region: GuestRegion = this.guest.addRegion(0, 9, { bytes: new Uint8Array(10 * 4096) });
  readonly scripted = new ScriptedSource(disc(20));
  readonly source: OpenGuest | ScriptedSource;
  readonly budget = new PinBudget(1000);
  readonly list: PageList;
  readonly spaces = [new IoAddressSpace(), new IoAddressSpace()];
  readonly accesses: Access[];
  readonly tables: PlainTable[] = [];
  readonly other = new IoAddressSpace();
  readonly otherList: PageList = createPageList(new ScriptedSource(disc(4, 90_000)));
  /** What is called from within. */
  hook: ((isNotice: boolean) => void) | null = null;
  #isInside = false;

  constructor(isStable: boolean) {
    this.guest.addRegion(10, 19, { firstFrame: 500, bytes: new Uint8Array(10 * 4096) });
    this.source = isStable ? this.guest : this.scripted;
    this.source.onPin = () => this.#call(false);
    this.list = new PageList(this.source, {
      budget: this.budget,
      batches: { slots: 2, chunkPages: 3 },
    });
    this.accesses = [0, 1].map(() =>
      new Access({
        onUnmap: (access, first, last) => {
          this.#call(true);
          access.unpinAll(first, last);
        },
      })
    );
    for (let at = 0; at < 2; at++) {
      const space = this.spaces[at];
      assertEquals(space.addPageTable(this.table()), OK);
      assertEquals(space.map(10, 13, this.list, 4 * at, RW), OK);
      assertEquals(space.map(20, 23, this.list, 8, RW), OK);
      assertEquals(this.accesses[at].attach(space), OK);
    }
    // The access of the first space holds pages that nothing else does, that of the second what both map.
    assertEquals(this.spaces[0].map(30, 32, this.list, 14, RW), OK);
    assertEquals(this.accesses[0].pin(30, 31, null, true), OK);
    assertEquals(this.accesses[1].pin(20, 21, null, true), OK);
  }

  table(): PlainTable {
    const table = new PlainTable({ name: `T${this.tables.length}` });
    table.onChange = () => this.#call(false);
    table.onFlush = () => this.#call(false);
    this.tables.push(table);
    return table;
  }

  /** Everything there is to see. */
  picture(): unknown {
    return {
      spaces: this.spaces.map((space) => {
        const mappings: unknown[] = [];
        const cursor = space.mappings();
        while (cursor.next()) {
          mappings.push([cursor.first, cursor.last, cursor.index, cursor.protection]);
        }
        return [mappings, space.tables.length, space.usableRanges, space.hasLargePages];
      }),
      entries: this.tables.map((table) =>
        [...table.entries].map(([page, entry]) => [page, entry.frame]).sort((a, b) => a[0] - b[0])
      ),
      pins: [...this.scripted.pins].sort((a, b) => a[0] - b[0]),
      held: [this.list.pinnedPages, this.budget.chargedPages, this.list.store.count],
      accesses: this.accesses.map((
        access,
      ) => [access.pinCount, this.spaces.indexOf(access.space!)]),
      regions: this.guest.regions.map((region) => [region.firstIndex, region.lastIndex]),
    };
  }

  close(): void {
    this.hook = null;
    for (let at = 0; at < 2; at++) {
      assertEquals(this.accesses[at].unpinAll(0, 1000), OK);
      if (this.accesses[at].space !== null) assertEquals(this.accesses[at].detach(), OK);
    }
    for (const space of this.spaces) {
      for (const table of [...space.tables]) assertEquals(space.removePageTable(table), OK);
      assertEquals(space.destroy(), OK);
    }
    assertEquals([this.list.pinnedPages, this.budget.chargedPages], [0, 0]);
    assertEquals(this.scripted.pinnedFrames, 0);
    this.list.release();
  }

  #call(isNotice: boolean): void {
    if (this.hook === null || this.#isInside) return;
    this.#isInside = true;
    this.hook(isNotice);
    this.#isInside = false;
  }
}

/** What runs; `me` is the space that it is of, `you` the other. */
const OPERATIONS: readonly [string, (scene: Scene, me: number) => Errno][] = [
  ["map", (s, me) => s.spaces[me].map(40, 46, s.list, 9, RW)],
  ["unmap", (s, me) => s.spaces[me].unmap(10, 13)],
  ["unmap of what is pinned", (s, me) => s.spaces[me].unmap(me === 0 ? 30 : 20, 32)],
  ["unmap all", (s, me) => s.spaces[me].unmapAll()],
  ["copy", (s, me) => s.spaces[me].copy(s.spaces[1 - me], 10, 13, 50, RW)],
  ["copy within", (s, me) => s.spaces[me].copy(s.spaces[me], 10, 13, 50, READ)],
  ["add a page table", (s, me) => s.spaces[me].addPageTable(s.table())],
  ["remove the last page table", (s, me) => s.spaces[me].removePageTable(s.tables[me])],
  ["refused map", (s, me) => {
    const narrow = s.table();
    narrow.map = () => {
      narrow.onChange?.();
      return 12;
    };
    return s.spaces[me].addPageTable(narrow) === OK ? OK : 0;
  }],
  ["pin", (s, me) => s.accesses[me].pin(10, 13, null, false)],
  ["pin of pages without a page table", (s, me) => {
    s.spaces[me].removePageTable(s.tables[me]);
    return s.accesses[me].pin(10, 13, null, false);
  }],
  ["unpin", (s, me) => {
    s.spaces[0].removePageTable(s.tables[0]);
    return me === 0 ? s.accesses[0].unpin(30, 31) : s.accesses[1].unpin(20, 21);
  }],
  ["read", (s, me) => s.accesses[me].read(10, 0, new Uint8Array(4096))],
  ["detach an access", (s, me) => s.accesses[me].detach()],
];

/** What is called from within and must be refused, whichever space is in the middle of what. */
const CALLS: readonly [string, (scene: Scene, at: number) => Errno][] = [
  ["map", (s, at) => s.spaces[at].map(60, 61, s.list, 0, RW)],
  ["mapAuto", (s, at) => s.spaces[at].mapAuto(2, s.list, 0, RW)],
  ["unmap", (s, at) => s.spaces[at].unmap(10, 13)],
  ["unmap of what is pinned", (s, at) => s.spaces[at].unmap(20, 23)],
  ["unmapAll", (s, at) => s.spaces[at].unmapAll()],
  ["copy", (s, at) => s.spaces[at].copy(s.spaces[1 - at], 20, 23, 70, RW)],
  ["copy within", (s, at) => s.spaces[at].copy(s.spaces[at], 20, 23, 70, RW)],
  ["addPageTable", (s, at) => s.spaces[at].addPageTable(new PlainTable())],
  ["removePageTable", (s, at) => s.spaces[at].removePageTable(s.tables[at])],
  ["pin", (s, at) => s.accesses[at].pin(20, 21, null, true)],
  ["pin of a page", (s, at) => s.accesses[at].pin(23, 23, null, false)],
  ["read", (s, at) => s.accesses[at].read(20, 0, new Uint8Array(9))],
  ["write", (s, at) => s.accesses[at].write(20, 0, new Uint8Array(9))],
  ["addAccess", (s) => s.list.addAccess(0, 3, null, false)],
];

/** What a list itself is asked for, for which only its own operations count. */
const LIST_CALLS = ["addAccess", "removeAccess"];

/** What lets go: refused except in an unmap notice. */
const LETTING_GO: readonly [string, (scene: Scene, at: number) => Errno][] = [
  ["unpin", (s, at) => at === 0 ? s.accesses[0].unpin(30, 31) : s.accesses[1].unpin(20, 21)],
  ["unpinAll", (s, at) => s.accesses[at].unpinAll(0, 1000)],
  ["detach", (s, at) => s.accesses[at].detach()],
  ["removeAccess", (s) => s.list.removeAccess(14, 15)],
];

/** What touches the space alone: refused in the space that is in the middle of an operation. */
const OWN_CALLS: readonly [string, (scene: Scene, at: number) => Errno][] = [
  ["reserve", (s, at) => s.spaces[at].reserve(100, 101, {})],
  ["unreserve", (s, at) => s.spaces[at].unreserve({})],
  ["allow", (s, at) => s.spaces[at].allow([{ first: 0, last: 5 }])],
  ["setLargePages", (s, at) => s.spaces[at].setLargePages(true)],
  ["setDirtyTracking", (s, at) => setDirtyTracking(s.spaces[at], true)],
  ["destroy", (s, at) => s.spaces[at].destroy()],
  ["attach", (s, at) => new Access().attach(s.spaces[at])],
];

for (const isStable of [true, false]) {
  for (const [name, act] of OPERATIONS) {
    Deno.test(`${isStable ? "stable" : "unstable"} source: nothing gets in during ${name}`, () => {
      for (const me of [0, 1]) {
        const plain = new Scene(isStable);
        const wanted = act(plain, me);
        const picture = plain.picture();
        plain.close();

        const scene = new Scene(isStable);
        let inside = 0;
        scene.hook = (isNotice) => {
          inside++;
          const busy = scene.spaces[me].isBusy;
          for (const at of [0, 1]) {
            if (!scene.list.isBusy && !scene.spaces[at].isBusy) continue;
            for (const [what, call] of CALLS) {
              if (LIST_CALLS.includes(what) && !scene.list.isBusy) continue;
              assertEquals(call(scene, at), EBUSY, `${what} ${at}`);
            }
            if (isNotice || scene.accesses[at].pinCount === 0) continue;
            for (const [what, call] of LETTING_GO) {
              // The access of a space that is in no operation may ask its own user first.
              if (what === "detach" && !scene.spaces[at].isBusy) continue;
              if (LIST_CALLS.includes(what) && !scene.list.isBusy) continue;
              assertEquals(call(scene, at), EBUSY, `${what} ${at}`);
            }
          }
          if (busy) {
            for (const [what, call] of OWN_CALLS) assertEquals(call(scene, me), EBUSY, what);
          }
          if (isStable && scene.list.isBusy) {
            assertThrows(
              () => scene.guest.removeRegion(scene.region),
              Error,
              "an operation on a page list runs",
            );
            assertThrows(
              () => scene.guest.addRegion(100, 101),
              Error,
              "an operation on a page list runs",
            );
          }
          // What has nothing to do with it goes on.
          assertEquals(scene.other.map(5, 6, scene.otherList, 0, RW), OK);
          assertEquals(scene.other.unmap(5, 6), OK);
        };
        assertEquals(act(scene, me), wanted);
        scene.hook = null;
        assertEquals(scene.picture(), picture);
        // Pins of what is held, and over a stable source all pins, call nothing back.
        const isQuiet = name === "pin" || (isStable && /^pin of|^unpin/.test(name));
        assert(inside > 0 || isQuiet, "nothing was called back");
        scene.close();
      }
    });
  }
}

Deno.test("in an unmap notice accesses of any space let go, and the unmap goes on", () => {
  for (const isStable of [true, false]) {
    const scene = new Scene(isStable);
    let notices = 0;
    scene.hook = (isNotice) => {
      if (!isNotice || notices++ > 0) return;
      assertEquals(scene.accesses[0].unpin(30, 31), OK);
      assertEquals(scene.accesses[1].detach(), OK);
      assertEquals(scene.accesses[1].attach(scene.spaces[1]), OK);
    };
    assertEquals(scene.spaces[0].unmap(30, 32), OK);
    assert(notices > 0);
    assertEquals([scene.accesses[0].pinCount, scene.accesses[1].pinCount], [0, 0]);
    scene.close();
  }
});
