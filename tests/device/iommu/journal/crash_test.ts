/**
 * A device that ends at every point of its service, once and several times in succession: the driver gets the answers, endpoints
 * the translations and the ring the contents that they get of a device that never ended.
 */
import { assert, assertEquals } from "@std/assert";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  probeRequest,
  unmapRequest,
} from "../../../../device/iommu/driver_requests.ts";
import { Journal } from "../../../../device/iommu/journal/journal.ts";
import { Requests } from "../../../../device/iommu/requests.ts";
import { VirtioIommu } from "../../../../device/iommu/virtio_iommu.ts";
import { PackedQueue, PositionRecord, SplitQueue } from "../../../../vring/mod.ts";
import { Chain } from "../../../../vring/chain.ts";
import { RingWords16, RingWords32 } from "../../../../vring/ring_words.ts";
import { CrashPoints } from "../../../crash_points.ts";
import { isLong } from "../../../long_mode.ts";
import { JournalledGuest, nameOf, RING_KINDS, type RingKind, stateOf } from "./journalled_guest.ts";

const PAGES = [...Array(24).keys(), 40, 64, 65];

function map(domain: number, page: number, last: number, frame: number, flags = 3): Uint8Array {
  return mapRequest({
    domain,
    virtStart: BigInt(page) * 4096n,
    virtEnd: BigInt(last) * 4096n + 4095n,
    physStart: BigInt(frame) * 4096n,
    flags,
  });
}

function unmap(domain: number, page: number, last: number): Uint8Array {
  return unmapRequest(domain, BigInt(page) * 4096n, BigInt(last) * 4096n + 4095n);
}

/** A history in which what a request comes to depends on those before it, failed ones among them. */
const REQUESTS: readonly Uint8Array[] = [
  // Executed again behind the ATTACH that makes its domain, the first would succeed.
  map(1, 0, 0, 8),
  attachRequest(1, 1),
  map(1, 0, 3, 8),
  map(1, 2, 5, 16),
  probeRequest(3),
  attachRequest(1, 17),
  map(1, 8, 8, 20, 1),
  unmap(1, 1, 2),
  unmap(1, 0, 3),
  map(1, 1, 2, 30),
  Uint8Array.of(9, 9, 9),
  attachRequest(2, 2),
  map(2, 40, 40, 9),
  // Its reserved region is mapped there.
  attachRequest(2, 3),
  unmap(2, 0, 64),
  attachRequest(2, 3),
  map(2, 40, 40, 9),
  map(2, 64, 65, 33, 2),
  attachRequest(3, 18, 1),
  map(3, 1, 1, 1),
  detachRequest(1, 17),
  detachRequest(1, 17),
  Uint8Array.of(3, 0, 0, 0),
  detachRequest(2, 2),
  attachRequest(1, 2),
  unmap(1, 5, 23),
  // As many mappings as there may be, and one more.
  ...Array.from({ length: 11 }, (_, i) => map(1, 10 + i, 10 + i, 50 + i)),
  unmap(1, 10, 12),
];

function points(): CrashPoints {
  return new CrashPoints(
    [Journal.prototype, "appendFields"],
    [PositionRecord.prototype, "attempt", "attempted", "intend", "shown", "goOn"],
    [SplitQueue.prototype, "next", "complete", "publish"],
    [PackedQueue.prototype, "next", "complete", "publish"],
    [RingWords16.prototype, "storeOrdered"],
    [RingWords32.prototype, "store", "storeOrdered"],
    [Requests.prototype, "serve", "answerAgain"],
    [VirtioIommu.prototype, "map", "unmap", "attach", "detach"],
    [Chain.prototype, "gather", "scatter"],
  );
}

/** Cuts a list into parts of a length. */
function batchesOf<T>(list: readonly T[], size: number): readonly (readonly T[])[] {
  return Array.from(
    { length: Math.ceil(list.length / size) },
    (_, i) => list.slice(i * size, (i + 1) * size),
  );
}

/** Serves a batch in devices that end at given points, each counted from where the one before ended, and then in one that does not. */
function serveEnding(guest: JournalledGuest, crash: CrashPoints, ends: readonly number[]): number {
  let crashes = 0;
  for (const [i, at] of ends.entries()) {
    crash.arm(at);
    const isOver = !crash.ends(() => {
      if (i > 0) guest.start();
      guest.serve();
    });
    if (isOver) return crashes;
    crashes++;
    // Ends that are staged look like a request that ends its device. That is another test.
    guest.recordWords[8] = 0;
    // What an entry that was being written leaves behind the tail.
    new Uint8Array(guest.journalBuffer, 64 + 128 + tailOf(guest) * 40, 40).fill(0xa5);
  }
  guest.start();
  guest.serve();
  return crashes;
}

function tailOf({ journalBuffer }: JournalledGuest): number {
  const header = new Int32Array(journalBuffer, 0, 5);
  return header[4] & (header[2] - 1);
}

/** What there is to compare. */
function outcomeOf(guest: JournalledGuest): string {
  return JSON.stringify([guest.answers, stateOf(guest.device, PAGES), guest.checksum]);
}

/** What a device that does not end comes to behind each batch, and how many points it passes in it. */
function unbroken(kind: RingKind, size: number, crash: CrashPoints): readonly [string, number][] {
  using guest = new JournalledGuest(kind);
  return batchesOf(REQUESTS, size).map((requests) => {
    guest.send(...requests);
    crash.arm();
    guest.serve();
    const { passed } = crash;
    guest.reap();
    return [outcomeOf(guest), passed];
  });
}

for (const kind of RING_KINDS) {
  Deno.test(`${nameOf(kind)}: requests survive the end of the device, wherever it is`, () => {
    using crash = points();
    let total = 0;
    for (const size of [1, 2, 3, 4, 5, 6, 7]) {
      const expected = unbroken(kind, size, crash);
      const batches = batchesOf(REQUESTS, size);
      for (let last = 0; last < batches.length; last++) {
        for (let at = (last + size) % 4; at < expected[last][1]; at += isLong ? 1 : 4) {
          using guest = new JournalledGuest(kind);
          for (const requests of batches.slice(0, last)) {
            guest.send(...requests);
            guest.serve();
            guest.reap();
          }
          // Once, or again within what follows, and again.
          const ends = [[at], [at, at % 11], [at, at % 5, at % 13, 3]][(at + last) % 3];
          guest.send(...batches[last]);
          total += serveEnding(guest, crash, ends);
          guest.reap();
          const where = `batches of ${size}, in ${last}, points ${ends}, ${crash.where}`;
          if (outcomeOf(guest) !== expected[last][0]) {
            assertEquals(JSON.parse(outcomeOf(guest)), JSON.parse(expected[last][0]), where);
          }
          if (last + 1 === batches.length) continue;
          // And it goes on like the other.
          guest.send(...batches[last + 1]);
          guest.serve();
          guest.reap();
          assert(outcomeOf(guest) === expected[last + 1][0], `behind ${where}`);
        }
      }
    }
    assert(total > 2000, `${total}`);
  });
}
