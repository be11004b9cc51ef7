/**
 * States that are saved, loaded and built again in pieces.
 *
 * What is counted is work: mappings that go between two steps, never time.
 */
import { assert, assertEquals } from "@std/assert";
import { attachRequest } from "../../../device/iommu/driver_requests.ts";
import { MAPPINGS_PER_PIECE } from "../../../device/iommu/piecewise_unmap.ts";
import { Turn } from "../../../device/iommu/turn.ts";
import type { MemoryRegion } from "../../../vring/mod.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import { FIRST, Stepped } from "../stepped_guest.ts";

/** A device with many mappings in two domains, and its state. */
function saved(): { readonly state: Uint8Array; readonly count: number } {
  using guest = new Stepped({ ...DEFAULT_OPTIONS, bypass: false });
  guest.request(attachRequest(1, 8));
  guest.request(attachRequest(2, 9));
  const count = 12 * MAPPINGS_PER_PIECE;
  guest.fill(1, count, 3);
  guest.fill(2, count, 2);
  return { state: guest.device.saveState(), count: 2 * count };
}

Deno.test("a state is loaded and saved in bounded pieces, and comes out as at once", () => {
  const { state, count } = saved();
  using guest = new Stepped({ ...DEFAULT_OPTIONS, bypass: false });
  const { device } = guest;
  const turn = new Turn();
  const results: (string | undefined)[] = [];
  device.beginLoad(state, (error) => results.push(error));
  assertEquals([results.length, device.messagesWait], [0, true]);
  let pieces = 0;
  for (; results.length === 0; pieces++) {
    const before = guest.mappings;
    turn.begin(0, 0);
    device.work(turn);
    assert(guest.mappings - before <= MAPPINGS_PER_PIECE, `${guest.mappings - before} at once`);
  }
  assertEquals([results, device.messagesWait, guest.mappings], [[undefined], false, count]);
  assert(pieces >= count / MAPPINGS_PER_PIECE, `${pieces}`);
  let bytes: Uint8Array | undefined;
  device.beginSave((each) => bytes = each);
  for (pieces = 0; bytes === undefined; pieces++) {
    turn.begin(0, 0);
    device.work(turn);
  }
  assert(pieces >= 20, `${pieces}`);
  assertEquals(bytes, state);
});

Deno.test("a session that ends in the middle of a load leaves every endpoint blocked", () => {
  const { state, count } = saved();
  using guest = new Stepped(DEFAULT_OPTIONS);
  const { device } = guest;
  device.beginLoad(state, () => assert(false, "it is not over"));
  const turn = new Turn();
  while (guest.mappings < count / 2) {
    turn.begin(0, 0);
    device.work(turn);
  }
  device.sessionEnds();
  device.disconnected();
  assertEquals([device.messagesWait, device.iommu.domains.length], [false, 0]);
  for (const endpoint of [8, 9, 10]) assertEquals(guest.reaches(endpoint, FIRST), false);
});

/** A device that has loaded many mappings without memory, and has memory by now: its queue is asked to start. */
function reloaded(options = DEFAULT_OPTIONS): {
  readonly guest: Stepped;
  readonly count: number;
  readonly region: MemoryRegion;
} {
  const region = { guestAddress: 0, size: 0x40000, buffer: new ArrayBuffer(0x40000), offset: 0 };
  const { state, count } = saved();
  const guest = new Stepped({ ...options, bypass: false });
  const { device } = guest;
  assertEquals(device.loadState(state), undefined);
  assert(guest.reaches(8, FIRST));
  // Frame 5, which all of it leads to, is RAM now.
  device.memoryAdded(region);
  assertEquals([device.guest.pinnedPages, device.isRebuilding], [0, false]);
  assertEquals(device.queueBegins(0, "loaded"), { isLater: true });
  assertEquals([device.messagesWait, device.isRebuilding], [true, true]);
  assert(guest.mappings < count, "it has begun");
  return { guest, count, region };
}

/** Goes on in bounded pieces until messages wait no more. Returns how many these were. */
function untilSettled(guest: Stepped): number {
  const { device } = guest;
  const turn = new Turn();
  let pieces = 0;
  for (; device.messagesWait; pieces++) {
    const before = guest.mappings;
    turn.begin(0, 0);
    device.work(turn);
    assert(Math.abs(guest.mappings - before) <= 2 * MAPPINGS_PER_PIECE, "a piece is bounded");
  }
  return pieces;
}

Deno.test("a loaded state that memory has come for is built again in bounded pieces, before its queue starts", () => {
  const { guest, count } = reloaded();
  using _ = guest;
  const { device } = guest;
  assertEquals(
    device.queueBegins(1, "loaded"),
    { isLater: true },
    "the other queue waits for it, too",
  );
  const pieces = untilSettled(guest);
  assert(pieces >= count / MAPPINGS_PER_PIECE, `${pieces} pieces`);
  assertEquals([guest.mappings, device.guest.pinnedPages, device.isRebuilding], [count, 1, false]);
  assert(guest.reaches(8, FIRST) && guest.reaches(9, FIRST) && !guest.reaches(8, FIRST + 1));
  assertEquals([device.queueBegins(0, "loaded"), device.queueBegins(1, "loaded")], [
    undefined,
    undefined,
  ]);
  assertEquals([device.life.state, device.hasWork], ["known", false]);
});

Deno.test("a loaded state that does not fit the memory that has come is refused behind its pieces, and tried with other memory", () => {
  const { guest, region } = reloaded({ ...DEFAULT_OPTIONS, maxPinned: 0 });
  using _ = guest;
  const { device } = guest;
  untilSettled(guest);
  const refusal = device.queueBegins(0, "loaded")?.refusal;
  assertEquals(refusal?.includes("NOMEM"), true, refusal);
  assertEquals(
    device.queueBegins(0, "loaded")?.refusal,
    refusal,
    "nothing is tried again with the same",
  );
  for (const endpoint of [8, 9, 10]) assertEquals(guest.reaches(endpoint, FIRST), false);
  device.memoryRemoved(region);
  assertEquals(device.queueBegins(0, "loaded"), { isLater: true });
  untilSettled(guest);
  assertEquals(device.queueBegins(0, "loaded"), undefined);
  assert(guest.reaches(8, FIRST));
});

Deno.test("a session that ends while a loaded state is built again leaves every endpoint blocked", () => {
  const { guest, count } = reloaded();
  using _ = guest;
  const { device } = guest;
  const turn = new Turn();
  while (guest.mappings < count / 2 || device.iommu.isEnding) {
    turn.begin(0, 0);
    device.work(turn);
  }
  device.sessionEnds();
  device.disconnected();
  assertEquals([device.isRebuilding, device.iommu.domains.length], [false, 0]);
  for (const endpoint of [8, 9, 10]) assertEquals(guest.reaches(endpoint, FIRST), false);
  while (device.hasWork) device.work(turn);
  assertEquals([guest.mappings, device.guest.pinnedPages], [0, 0]);
});
