/** Snapshots of a device, from which a journal is replayed. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { IommuDevice } from "../../../../device/iommu/iommu_device.ts";
import { attachRequest, mapRequest } from "../../../../device/iommu/driver_requests.ts";
import { Journal } from "../../../../device/iommu/journal/journal.ts";
import { sequenceOf } from "../../../../device/iommu/journal/snapshot.ts";
import type { GuestSource } from "../../../../iommufd/mod.ts";
import { JournalledGuest, OPTIONS, SPARE_PAGE, stateOf } from "./journalled_guest.ts";

const KIND = { packed: true, inOrder: true };
const PAGES = [...Array(16).keys()];

function map(page: number, count: number, frame: number): Uint8Array {
  return mapRequest({
    domain: 1,
    virtStart: BigInt(page) * 4096n,
    virtEnd: BigInt(page + count) * 4096n - 1n,
    physStart: BigInt(frame) * 4096n,
    flags: 3,
  });
}

function serve(guest: JournalledGuest, ...requests: readonly Uint8Array[]): void {
  guest.send(...requests);
  guest.serve();
  guest.reap();
}

/** A device that has replayed the guest's journal. */
function follower({ journalBuffer, snapshot }: JournalledGuest): IommuDevice {
  const device = new IommuDevice(OPTIONS);
  assertEquals(device.journal.replay(Journal.open(journalBuffer), snapshot), undefined);
  return device;
}

/** Memory types of the pages that endpoint 17 is translated to, whose tables have them. */
function memoryTypes(device: IommuDevice): readonly number[] {
  return PAGES.slice(0, 8).map((page) => device.walk(17, page, 1).memoryType);
}

Deno.test("a page that is mapped stays RAM or device memory over a snapshot, whatever memory has done", () => {
  // Each of these was wrong in a device that only mapped again what was mapped.
  for (const takesSnapshot of [false, true]) {
    using guest = new JournalledGuest(KIND);
    // Device memory now, RAM later.
    serve(guest, attachRequest(1, 17), map(0, 2, SPARE_PAGE));
    guest.changeMemory();
    // RAM now, removed later; and a page of which one holder says device memory already.
    serve(guest, map(2, 2, SPARE_PAGE + 4), map(4, 2, SPARE_PAGE + 1));
    guest.changeMemory();
    serve(guest, map(6, 1, SPARE_PAGE + 4), map(7, 1, SPARE_PAGE + 8));
    guest.changeMemory();
    serve(guest, map(8, 1, SPARE_PAGE + 8), map(9, 1, SPARE_PAGE + 9));
    const expected = stateOf(guest.device, PAGES);
    const types = memoryTypes(guest.device);
    assertEquals(new Set(types).size, 2, "both kinds are there");
    assertEquals(types[2], types[6], "a page held of a removed region is still RAM");
    if (takesSnapshot) guest.compact();
    const replayed = follower(guest);
    assertEquals(stateOf(replayed, PAGES), expected);
    assertEquals(memoryTypes(replayed), types);
    guest.start();
    assertEquals(stateOf(guest.device, PAGES), expected);
    // Pages that nothing else holds are let go with their mappings.
    guest.device.iommu.reset();
    while (guest.device.iommu.isEnding) guest.device.iommu.endPiece();
    assert(guest.device.guest.held.isEmpty);
    assertEquals((guest.device.guest.source as GuestSource).retired, []);
  }
});

Deno.test("memory that an earlier process had is the same memory, and not added again", () => {
  using guest = new JournalledGuest(KIND);
  serve(guest, attachRequest(1, 17), map(0, 2, 0));
  guest.start();
  const source = guest.device.guest.source as GuestSource;
  assertEquals([source.regions.length, source.retired.length], [1, 0]);
});

Deno.test("the journal is compacted by a snapshot of a device that only follows", () => {
  using guest = new JournalledGuest(KIND);
  serve(guest, attachRequest(1, 17), map(0, 2, 0));
  const spare = follower(guest);
  assert(spare.journal.canSnapshot);
  serve(guest, map(2, 2, 8));
  const length = Journal.open(guest.journalBuffer).length;
  guest.snapshot = spare.journal.takeSnapshot();
  guest.device.journal.snapshotKept(guest.snapshot);
  assertEquals(
    Journal.open(guest.journalBuffer).length,
    1,
    `of ${length}, only what came later is left`,
  );
  assertEquals(stateOf(follower(guest), PAGES), stateOf(guest.device, PAGES));
});

Deno.test("a snapshot that is not one, or of another version, is refused in one line", () => {
  using guest = new JournalledGuest(KIND);
  const snapshot = guest.device.journal.takeSnapshot();
  assertEquals(typeof sequenceOf(snapshot), "number");
  assertEquals(
    sequenceOf(new Uint8Array(100)),
    "Cannot read the snapshot: it does not begin as one does",
  );
  const later = snapshot.slice();
  later[4] = 2;
  assertEquals(
    sequenceOf(later),
    "Cannot read the snapshot: its version is 2, this program knows 1",
  );
  assertThrows(() => guest.device.journal.snapshotKept(later), Error, "Cannot compact the journal");
  const device = new IommuDevice(OPTIONS);
  assertEquals(
    device.journal.replay(Journal.open(guest.journalBuffer), snapshot.subarray(0, -1)),
    "Cannot read the snapshot: its length is wrong",
  );
});

Deno.test("a device that takes over behind a snapshot, with no entry after it, is what the snapshot says", () => {
  using guest = new JournalledGuest(KIND);
  serve(guest, attachRequest(1, 17), map(0, 2, 0));
  // The guest may be another one: what is known of it is in no entry of a device that has done nothing.
  guest.device.reset("doubtful");
  guest.compact();
  const expected = stateOf(guest.device, PAGES);
  for (let times = 0; times < 3; times++) {
    guest.start();
    assertEquals(Journal.open(guest.journalBuffer).length, 0);
    assertEquals(stateOf(guest.device, PAGES), expected);
  }
});
