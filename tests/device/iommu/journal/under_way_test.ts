/**
 * Requests that take more than a turn, or whose answers wait for IOTLB listeners in other processes, over the end of the device; and
 * a request that ends every device which executes it.
 */
import { assert, assertEquals } from "@std/assert";
import {
  attachRequest,
  mapRequest,
  probeRequest,
  unmapRequest,
} from "../../../../device/iommu/driver_requests.ts";
import { Domain } from "../../../../device/iommu/domain.ts";
import type { IommuDevice } from "../../../../device/iommu/iommu_device.ts";
import type { RemoteIotlbListener } from "../../../../device/iommu/iotlb_listeners.ts";
import { Journal } from "../../../../device/iommu/journal/journal.ts";
import { Requests } from "../../../../device/iommu/requests.ts";
import { Turn } from "../../../../device/iommu/turn.ts";
import { VirtioIommu } from "../../../../device/iommu/virtio_iommu.ts";
import { S_DEVERR, S_OK, STATUS_NAMES } from "../../../../device/iommu/wire.ts";
import { IoAddressSpace } from "../../../../iommufd/mod.ts";
import { PackedQueue, PositionRecord, SplitQueue } from "../../../../vring/mod.ts";
import { Crash, CrashPoints } from "../../../crash_points.ts";
import { isLong } from "../../../long_mode.ts";
import { JournalledGuest, nameOf, OPTIONS, RING_KINDS, stateOf } from "./journalled_guest.ts";

const KIND = { packed: true, inOrder: true };
const LARGE = {
  ...OPTIONS,
  reserved: [],
  maxMappings: 4096,
  maxTableMemory: 8 << 20,
};

function map(page: number, count = 1, frame = page): Uint8Array {
  return mapRequest({
    domain: 1,
    virtStart: BigInt(page) * 4096n,
    virtEnd: BigInt(page + count) * 4096n - 1n,
    physStart: BigInt(frame) * 4096n,
    flags: 3,
  });
}

function unmap(page: number, count = 1): Uint8Array {
  return unmapRequest(1, BigInt(page) * 4096n, BigInt(page + count) * 4096n - 1n);
}

/** Names of the statuses of the driver's last answers. */
function statuses(guest: JournalledGuest, count: number): readonly string[] {
  return guest.answers.slice(-count).map((answer) =>
    STATUS_NAMES[Number(/: (\d+)/.exec(answer)![1])]
  );
}

function serve(guest: JournalledGuest, ...requests: readonly Uint8Array[]): readonly string[] {
  guest.send(...requests);
  guest.serve();
  assertEquals(guest.reap(), requests.length);
  return statuses(guest, requests.length);
}

function points(): CrashPoints {
  return new CrashPoints(
    [Journal.prototype, "appendFields"],
    [PositionRecord.prototype, "attempt", "attempted", "intend", "shown"],
    [SplitQueue.prototype, "complete", "publish"],
    [PackedQueue.prototype, "complete", "publish"],
    [Requests.prototype, "serve", "proceed", "answerAgain"],
    [IoAddressSpace.prototype, "unmap", "map", "beginMap", "fillStep", "clearAhead"],
    [Domain.prototype, "fillStep", "beginJoin", "join"],
  );
}

/** Keeps translations of one endpoint in another process. */
class Remote implements RemoteIotlbListener {
  owed = 0;
  readonly calls: string[] = [];
  readonly #device: IommuDevice;

  constructor(device: IommuDevice, endpoint: number) {
    this.#device = device;
    device.iotlbListeners.addRemote(endpoint, this);
  }

  invalidate(firstPage: number, lastPage: number): void {
    this.#owe(`${firstPage} ${lastPage}`);
  }

  invalidateAll(): void {
    this.#owe("all");
  }

  mapped(): void {}

  acknowledge(): void {
    this.#device.iotlbListeners.arrived(this.owed);
    this.owed = 0;
  }

  #owe(call: string): void {
    this.calls.push(call);
    this.owed++;
    this.#device.iotlbListeners.expect();
  }
}

Deno.test("an UNMAP whose answer waits for another process is answered by the next device, when that has let go of all", () => {
  for (const kind of RING_KINDS) {
    using guest = new JournalledGuest(kind);
    let remote = new Remote(guest.device, 1);
    guest.onDevice = (device) => remote = new Remote(device, 1);
    guest.onHeld = () => remote.acknowledge();
    serve(guest, attachRequest(1, 1), map(1), map(2));
    guest.onHeld = () => {};
    guest.send(unmap(1), map(3));
    guest.serve();
    assertEquals([guest.device.holds, guest.reap()], [true, 0]);
    guest.start();
    assertEquals(remote.calls.at(-1), "all");
    guest.serve();
    assertEquals(guest.reap(), 0, "it may still use the old translation");
    remote.acknowledge();
    guest.serve();
    assertEquals(guest.reap(), 2);
    assertEquals(statuses(guest, 2), ["OK", "OK"]);
    assertEquals(
      guest.device.requests.counts.reduce((sum, count) => sum + count),
      0,
      "executed once",
    );
    guest.onHeld = () => remote.acknowledge();
  }
});

for (const kind of RING_KINDS) {
  Deno.test(`${nameOf(kind)}: requests whose answers wait for another process survive at any point`, () => {
    using crash = points();
    const batch = [unmap(1, 2), map(1), attachRequest(2, 1), map(1), unmap(1)];
    const run = (at: number): readonly [string, number] => {
      using guest = new JournalledGuest(kind);
      let remote = new Remote(guest.device, 1);
      guest.onDevice = (device) => remote = new Remote(device, 1);
      guest.onHeld = () => remote.acknowledge();
      serve(guest, attachRequest(1, 1), attachRequest(1, 2), map(1), map(2), map(3));
      guest.send(...batch);
      crash.arm(at);
      if (crash.ends(() => guest.serve())) {
        guest.start();
        guest.serve();
      }
      const { passed } = crash;
      guest.reap();
      return [JSON.stringify([guest.answers, stateOf(guest.device, [1, 2, 3])]), passed];
    };
    const [expected, count] = run(Infinity);
    for (let at = 0; at < count; at++) assertEquals(run(at)[0], expected, crash.where);
    assert(count > 40);
  });
}

/** Requests that are done in pieces, what has to be there before, and what makes it so again. */
const IN_PIECES: readonly {
  readonly name: string;
  readonly request: Uint8Array;
  readonly before: () => readonly Uint8Array[];
  readonly again: () => readonly Uint8Array[];
}[] = [{
  name: "an UNMAP of very many mappings",
  request: unmap(0x1000, 0x1000),
  before: () => Array.from({ length: 1500 }, (_, i) => map(0x1000 + i)),
  again: () => Array.from({ length: 1500 }, (_, i) => map(0x1000 + i)),
}, {
  name: "a MAP that fills page tables in steps",
  request: map(0x100000, 2 ** 17, 3),
  before: () => [],
  again: () => [unmap(0x100000, 2 ** 17)],
}, {
  name: "an ATTACH that fills page tables in steps",
  request: attachRequest(1, 17),
  before: () => Array.from({ length: 1500 }, (_, i) => map(0x1000 + i)),
  again: () => [Uint8Array.from([2, 0, 0, 0, 1, 0, 0, 0, 17, ...new Uint8Array(11)])],
}];

for (const { name, request, before, again } of IN_PIECES) {
  Deno.test(`${name} is done once or again, wherever the device ends`, () => {
    using crash = points();
    using guest = new JournalledGuest(KIND, LARGE, 1 << 20);
    const prepare = (requests: readonly Uint8Array[]): void => {
      for (let i = 0; i < requests.length; i += 7) {
        const answers = serve(guest, ...requests.slice(i, i + 7));
        assert(answers.every((answer) => answer === "OK"));
      }
      if (guest.device.journal.wantsSnapshot) guest.compact();
    };
    prepare([attachRequest(1, 1), ...before()]);
    const pages = [0x1000, 0x1100, 0x15db, 0x100000, 0x11ffff];
    const unserved = JSON.stringify(stateOf(guest.device, pages));
    crash.arm();
    assertEquals(serve(guest, request), ["OK"]);
    const { passed } = crash;
    const served = JSON.stringify(stateOf(guest.device, pages));
    assert(passed > 12 && served !== unserved);
    for (let at = 0; at < passed; at += isLong || passed < 40 ? 1 : 3) {
      prepare(again());
      guest.compact();
      guest.send(request);
      crash.arm(at);
      assert(crash.ends(() => guest.serve()));
      const isDone = Journal.open(guest.journalBuffer).length > 0;
      guest.start();
      const state = JSON.stringify(stateOf(guest.device, pages));
      assertEquals(state, isDone ? served : unserved, crash.where);
      guest.serve();
      assertEquals([guest.reap(), ...statuses(guest, 1)], [1, "OK"], crash.where);
      assertEquals(JSON.stringify(stateOf(guest.device, pages)), served, crash.where);
    }
  });
}

Deno.test("a device that ends between the pieces of a request, however often, does not make it suspect", () => {
  using guest = new JournalledGuest(KIND, LARGE, 1 << 20);
  serve(guest, attachRequest(1, 1));
  for (let i = 0; i < 1500; i += 5) serve(guest, ...[0, 1, 2, 3, 4].map((j) => map(i + j)));
  guest.send(unmap(0, 0x1000));
  const turn = new Turn();
  for (let times = 0; times < 5; times++) {
    turn.begin(0, 0);
    guest.serveOnce(turn);
    assert(guest.device.messagesWait, "it is under way");
    guest.device.work(turn);
    assert(guest.device.messagesWait && guest.device.iommu.mappingCount < 1500);
    guest.start();
    assertEquals(guest.device.iommu.mappingCount, 1500);
  }
  guest.serve();
  assertEquals([guest.reap(), ...statuses(guest, 1)], [1, "OK"]);
});

/** Lets devices end in `method` of {@linkcode VirtioIommu} or {@linkcode Requests}, if it is called for what `isIt` recognizes. */
function faulty<A extends unknown[]>(
  prototype: object,
  name: string,
  isIt: (...args: A) => boolean,
): Disposable {
  const methods = prototype as Record<string, (...args: A) => unknown>;
  const original = methods[name];
  methods[name] = function (this: unknown, ...args: A): unknown {
    if (isIt(...args)) throw new Crash("a bug");
    return original.apply(this, args);
  };
  return { [Symbol.dispose]: () => void (methods[name] = original) };
}

/** Serves until a device does not end. Returns how many did. */
function deaths(guest: JournalledGuest): number {
  using crash = new CrashPoints();
  for (let count = 0;; count++) {
    const turn = () => {
      if (count > 0) guest.start();
      guest.serve();
    };
    if (!crash.ends(turn) || count > 9) return count;
  }
}

Deno.test("a request that ends two devices is answered with DEVERR by the third, and the guest goes on", () => {
  for (const kind of RING_KINDS) {
    using guest = new JournalledGuest(kind);
    serve(guest, attachRequest(1, 1), map(1));
    using _ = faulty(VirtioIommu.prototype, "map", (_domain: unknown, page: number) => page === 5);
    guest.send(map(4), map(5), map(6), probeRequest(1));
    assertEquals(deaths(guest), 2);
    assertEquals(guest.reap(), 4);
    assertEquals(statuses(guest, 4).slice(0, 3), ["OK", "DEVERR", "OK"]);
    assertEquals(guest.device.iommu.mappingCount, 3);
    const [event] = [...guest.device.events.since(0)];
    assert(event.kind === "refused");
    assertEquals(
      [event.request, event.status, event.reason],
      ["MAP", "DEVERR", "each process that executed the request has ended"],
    );
    // A replay gives the same answer.
    guest.start();
    assertEquals([guest.device.iommu.mappingCount, guest.reap()], [3, 0]);
    // The next one of that kind has its own tries.
    guest.send(map(5));
    assertEquals([deaths(guest), guest.reap(), ...statuses(guest, 1)], [2, 1, "DEVERR"]);
  }
});

Deno.test("a PROBE that ends two devices has its status behind the properties, where the driver looks for it", () => {
  using guest = new JournalledGuest(KIND);
  const { reserved } = { reserved: guest.device.endpoints };
  using _ = faulty(Object.getPrototypeOf(reserved), "formatOf", () => true);
  guest.send(probeRequest(3));
  assertEquals([deaths(guest), guest.reap()], [2, 1]);
  const [used, bytes] = guest.answers.at(-1)!.split(": ");
  assertEquals(Number(bytes.split(",")[Number(used) - 4]), S_DEVERR);
  assert(Number(used) > 4);
});

Deno.test("an answer that was written twice in vain is no reason to refuse the request", () => {
  using guest = new JournalledGuest(KIND);
  using crash = new CrashPoints([PackedQueue.prototype, "publish"]);
  serve(guest, attachRequest(1, 1));
  guest.send(map(5));
  for (let times = 0; times < 4; times++) {
    crash.arm(0);
    assert(crash.ends(() => {
      if (times > 0) guest.start();
      guest.serve();
    }));
  }
  guest.start();
  guest.serve();
  assertEquals([guest.reap(), ...statuses(guest, 1)], [1, STATUS_NAMES[S_OK]]);
});

Deno.test("a state that was loaded is kept in a snapshot before anything else, or everything is blocked", () => {
  using source = new JournalledGuest(KIND);
  serve(source, attachRequest(1, 1), map(1));
  const state = source.device.saveState();
  for (const isKept of [false, true]) {
    using guest = new JournalledGuest(KIND);
    for (const message of guest.resetMessages("system").slice(0, 2)) message();
    assertEquals(guest.device.loadState(state), undefined);
    assertEquals([guest.device.journal.mustSnapshot, guest.device.messagesWait], [true, true]);
    if (isKept) {
      guest.compact();
      assertEquals(guest.device.messagesWait, false);
      // Memory that comes afterwards is known as RAM when the guest goes on.
      guest.changeMemory();
    }
    guest.start();
    assertEquals(guest.device.life.state, isKept ? "known" : "unknown");
    assertEquals(guest.device.walk(1, 1, 1).ok, isKept);
    if (!isKept) continue;
    while (guest.device.queueBegins(0, "loaded")?.isLater) guest.device.work(new Turn());
    guest.startRing();
    assertEquals(serve(guest, unmap(1)), ["OK"]);
    assertEquals(guest.device.iommu.mappingCount, 0);
    guest.start();
    assertEquals(guest.device.iommu.mappingCount, 0);
  }
});
