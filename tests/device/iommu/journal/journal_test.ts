/** The journal as a ring of entries: its limits, its versions, and a reader beside the writer. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  attachRequest,
  mapRequest,
  unmapRequest,
} from "../../../../device/iommu/driver_requests.ts";
import { IommuDevice } from "../../../../device/iommu/iommu_device.ts";
import { Entry, HEADER_BYTES, Journal } from "../../../../device/iommu/journal/journal.ts";
import { DEFAULT_OPTIONS } from "../../in_process_guest.ts";
import { JournalledGuest, OPTIONS, stateOf } from "./journalled_guest.ts";

const KIND = { packed: false, inOrder: false };

/** An entry that names itself in each of its fields. */
function numbered(number: number): Entry {
  const entry = new Entry();
  return Object.assign(entry, {
    kind: 3,
    status: number % 9,
    flags: number % 8,
    domain: 2 ** 32 - 1 - number,
    position: 2 ** 32 - 2 - number,
    id: 2 ** 31 + number,
    first: 2 ** 52 - 1 - number,
    last: 2 ** 52 - 1,
    frame: 2 ** 40 + number,
  });
}

function pair(page: number): readonly Uint8Array[] {
  const [virtStart, virtEnd] = [BigInt(page) * 4096n, BigInt(page) * 4096n + 4095n];
  return [
    mapRequest({ domain: 1, virtStart, virtEnd, physStart: 0x8000n, flags: 3 }),
    unmapRequest(1, virtStart, virtEnd),
  ];
}

Deno.test("entries are read as they were written, over the ends of the ring and of the numbers", () => {
  const buffer = new ArrayBuffer(HEADER_BYTES + 64 * 40);
  // 70 entries before the sequence numbers come round.
  Journal.open(buffer);
  new Int32Array(buffer, 12, 2).fill(-70);
  const journal = Journal.open(buffer);
  const read: Entry[] = [];
  let from = journal.head;
  for (let number = 0; number < 200; number++) {
    journal.append(numbered(number));
    if (number % 7 !== 0) continue;
    const end = Journal.open(buffer).read(from, (entry) => {
      read.push(Object.assign(new Entry(), entry));
      return undefined;
    });
    assert(typeof end === "number");
    from = end;
    journal.forgetBefore(from);
  }
  assertEquals(read, read.map((_, number) => numbered(number)));
  assert(read.length > 190);
});

Deno.test("a journal without room takes no entry, and what a reader has missed is not made up", () => {
  const journal = Journal.open(new ArrayBuffer(HEADER_BYTES + 100 * 40));
  assertEquals([journal.capacity, journal.room], [64, 64]);
  for (let number = 0; number < 64; number++) journal.append(numbered(number));
  assertThrows(() => journal.append(numbered(64)), Error, "its 64 entries are needed");
  assertEquals(journal.read(0, () => undefined), 64);
  journal.forgetBefore(2);
  journal.append(numbered(64));
  const gone = "Cannot replay the journal: entries that have not been read are gone";
  assertEquals(journal.read(0, () => undefined), gone);
  assertEquals(journal.read(1, () => undefined), gone, "it may be written over at this moment");
  assertEquals(journal.read(2, () => undefined), 65);
});

Deno.test("memory with something else in it than a journal of this version is refused", () => {
  const open = (change: (words: Int32Array) => void): () => void => {
    const buffer = new ArrayBuffer(1 << 14);
    Journal.open(buffer);
    change(new Int32Array(buffer));
    return () => Journal.open(buffer);
  };
  assertThrows(open((words) => words[0]++), Error, "it does not begin as one does");
  assertThrows(open((words) => words[1]++), Error, "its version is 2, this program knows 1");
  assertThrows(open((words) => words[2] = 63), Error, "it cannot have 63 entries");
  assertThrows(open((words) => words[2] = 1024), Error, "it cannot have 1024 entries");
  assertThrows(
    () => Journal.open(new ArrayBuffer(2000)),
    RangeError,
    "Cannot keep a journal in 2000",
  );
});

Deno.test("requests and messages wait when a snapshot is overdue, and go on behind it", () => {
  using guest = new JournalledGuest(KIND, OPTIONS, HEADER_BYTES + 64 * 40);
  guest.send(attachRequest(1, 1));
  guest.serve();
  guest.reap();
  const { device } = guest;
  let served = 0;
  let wanted = -1;
  while (!device.messagesWait) {
    guest.send(...pair(served));
    guest.serve();
    if (wanted < 0 && device.journal.wantsSnapshot) wanted = served;
    served += guest.reap();
    assert(served < 64);
  }
  assert(wanted > 0 && wanted < served, "it is asked for in time");
  guest.send(...pair(60));
  guest.serve();
  assertEquals(guest.reap(), 0);
  // Messages that cannot wait find room.
  for (let i = 0; i < 6; i++) guest.changeMemory();
  guest.compact();
  assertEquals(device.messagesWait, false);
  guest.serve();
  assertEquals(guest.reap(), 2);
  assert(!device.journal.wantsSnapshot);
});

Deno.test("a reset makes void what comes before it, memory and bypass apart", () => {
  using guest = new JournalledGuest(KIND);
  guest.send(attachRequest(1, 1), ...pair(3));
  guest.serve();
  guest.changeMemory();
  guest.writeBypass(true);
  const before = Journal.open(guest.journalBuffer).length;
  for (const message of guest.resetMessages("device")) message();
  const journal = Journal.open(guest.journalBuffer);
  // The device as it is now, two regions, and the start of the queue.
  assertEquals(journal.length, 4, `of ${before}`);
  const follower = new IommuDevice(OPTIONS);
  assertEquals(follower.journal.replay(journal), undefined);
  assertEquals(stateOf(follower, [3]), stateOf(guest.device, [3]));
  assertEquals(follower.bypass, true);
});

Deno.test("a journal whose beginning is missing is not replayed", () => {
  using guest = new JournalledGuest(KIND);
  guest.send(attachRequest(1, 1), ...pair(3));
  guest.serve();
  guest.compact();
  for (const more of [false, true]) {
    if (more) guest.send(...pair(4));
    if (more) guest.serve();
    const journal = Journal.open(guest.journalBuffer);
    assertEquals(
      new IommuDevice(OPTIONS).journal.replay(journal),
      "Cannot replay the journal: what comes before its first entry is in a snapshot that is missing",
    );
  }
});

Deno.test("a journal that the options do not fit is refused in one line", () => {
  using guest = new JournalledGuest(KIND);
  guest.send(attachRequest(1, 1), pair(3)[0], attachRequest(2, 2));
  guest.serve();
  const replay = (changes: Partial<typeof OPTIONS>): string | undefined =>
    new IommuDevice({ ...OPTIONS, ...changes }).journal.replay(Journal.open(guest.journalBuffer));
  assertEquals(replay({}), undefined);
  assertEquals(
    replay({ endpoints: [{ first: 0, last: 1, format: "vtd-ss" }] }),
    "Cannot replay the journal: ATTACH of endpoint 2 failed with error 2",
  );
  assertEquals(
    replay({ maxMappings: 0 }),
    "Cannot replay the journal: MAP of 0x3000-0x3fff in domain 1 failed with error 12",
  );
});

Deno.test("an entry of a kind that is not known ends the replay", () => {
  using guest = new JournalledGuest(KIND);
  const journal = Journal.open(guest.journalBuffer);
  journal.append(Object.assign(new Entry(), { kind: 99 }));
  assertEquals(
    new IommuDevice(OPTIONS).journal.replay(journal),
    "Cannot replay the journal: it has an entry of unknown kind 99",
  );
});

Deno.test("host frames end with the process, so a device with them keeps no journal", () => {
  const hostMemory = { lock: () => -1, pagemap: () => 0, unlock: () => {} } as never;
  const device = new IommuDevice({ ...DEFAULT_OPTIONS, hostMemory });
  const journal = Journal.open(new ArrayBuffer(1 << 14));
  assertThrows(() => device.journal.takeOver(journal), Error, "the tables hold host frames");
});

Deno.test("what a driver wrote before it started the queue counts until that has started for good, and no longer", () => {
  for (const isServedAgain of [false, true]) {
    using guest = new JournalledGuest(KIND);
    // Behind a guest of which nothing is known, the journal does not begin anew.
    const sign = isServedAgain ? "new" : "used";
    const start = (): void => {
      guest.device.queueBegins(0, sign);
      guest.startRing();
    };
    guest.stopRing();
    guest.writeBypass(true);
    // The message that starts the queue is served again if the process ends in it, and must do the same again.
    if (isServedAgain) guest.device.queueBegins(0, sign);
    if (isServedAgain) guest.device.queueStarted(0, undefined as never);
    if (isServedAgain) guest.start();
    start();
    assertEquals(guest.device.bypass, true);
    guest.start();
    assertEquals(guest.device.bypass, true);
    // What passed at power-on and passes now, passes; bypass was off at power-on.
    for (const message of guest.resetMessages("doubtful")) message();
    assertEquals(guest.device.bypass, false);
    guest.start();
    assertEquals(guest.device.bypass, false);
  }
});
