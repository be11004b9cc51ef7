/**
 * Guest memory that changes between two reads of the device.
 *
 * The queues of these tests read through a space that changes the guest's memory each time the device looks for
 * a place in it: between two reads, and between a check and the use of what was checked.
 */
import { assert, assertEquals } from "@std/assert";
import { attachRequest, mapRequest, unmapRequest } from "../../../device/iommu/driver_requests.ts";
import type { DeviceOptions } from "../../../device/iommu/iommu_device.ts";
import { READ, WRITE } from "../../../pagetable/mod.ts";
import type { AddressSpace, GuestMemory } from "../../../vring/mod.ts";
import { Random, seed } from "../../guest/random.ts";
import { isLong } from "../../long_mode.ts";
import { HostileGuest, type Outcome } from "./hostile_guest.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";

const OPTIONS: DeviceOptions = { ...DEFAULT_OPTIONS, maxTableMemory: 2 << 20 };
const INPUTS = isLong ? 1_000_000 : 10_000;
const HISTORY = 100;

/** Guest memory with something that happens at every look. */
class ChangingMemory implements AddressSpace {
  readonly #memory: GuestMemory;
  /** Called with the number of the look since {@linkcode looks} was set to 0. */
  onLook: (look: number) => void = () => {};
  looks = 0;

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  get generation(): number {
    return this.#memory.generation;
  }

  get bytes(): Uint8Array {
    return this.#memory.bytes;
  }

  get data(): DataView {
    return this.#memory.data;
  }

  get offset(): number {
    return this.#memory.offset;
  }

  resolve(address: number, length: number, write: boolean, page = 0): number {
    this.onLook(this.looks++);
    return this.#memory.resolve(address, length, write, page);
  }

  written(address: number, length: number, page = 0): void {
    this.#memory.written(address, length, page);
  }
}

/** A guest whose memory changes. */
function changingGuest(): { readonly guest: HostileGuest; readonly memory: ChangingMemory } {
  let memory: ChangingMemory | undefined;
  const layout = { packed: false, eventIndex: false, indirect: false };
  const guest = new HostileGuest(OPTIONS, layout, (space) => memory = new ChangingMemory(space));
  return { guest, memory: memory! };
}

/** Sends a request in one piece with room for its status. */
function send(guest: HostileGuest, bytes: Uint8Array): Outcome {
  return guest.request(bytes, [{ gap: 0, length: bytes.length }], [{ gap: 0, length: 4 }]);
}

/** Where {@linkcode send} puts the request. */
const REQUEST = 0x4000;

/** Every mapping that the device lists is walked as it is listed. */
function assertConsistent({ device }: HostileGuest): void {
  for (const domain of device.iommu.domains) {
    const cursor = domain.space.mappings(0);
    while (cursor.next()) {
      for (const { id } of domain.endpoints) {
        for (
          const [page, frame] of [
            [cursor.first, cursor.index],
            [cursor.last, cursor.index + cursor.last - cursor.first],
          ]
        ) {
          const walk = device.walk(id, page, (cursor.protection & READ) !== 0 ? READ : WRITE);
          assertEquals([walk.ok, walk.frame], [true, frame], walk.faultName);
        }
      }
    }
  }
}

Deno.test("a request that changes after it was read is served as it was read", () => {
  const { guest, memory } = changingGuest();
  send(guest, attachRequest(1, 8));
  const fields = { domain: 1, virtStart: 0x1000n, virtEnd: 0x2fffn, physStart: 0x5000n, flags: 1 };
  const map = mapRequest(fields);
  memory.looks = 0;
  // The first look finds the request, those behind it the place of the answer.
  memory.onLook = (look) => {
    if (look > 0) guest.bytes.fill(0xff, REQUEST, REQUEST + map.length);
  };
  const { length, written, counted } = send(guest, map);
  assert(memory.looks > 1 && guest.bytes[REQUEST] === 0xff, "the request has changed");
  assertEquals([length, ...written, counted], [4, 0, 0, 0, 0, "3 OK"]);
  const cursor = guest.device.iommu.domain(1)!.space.mappings(0);
  assert(cursor.next());
  assertEquals([cursor.first, cursor.last, cursor.index, cursor.protection], [1, 2, 5, READ]);
  assert(!cursor.next());
  guest.close();
});

Deno.test("a descriptor that changes after it was read leads nowhere else", () => {
  const { guest, memory } = changingGuest();
  const attach = attachRequest(1, 8);
  memory.looks = 0;
  memory.onLook = () => guest.bytes.fill(0xff, 0, 32);
  const { length, counted } = send(guest, attach);
  assertEquals([length, counted], [4, "1 OK"]);
  guest.close();
});

/** One guest whose memory changes at random at each look of the device. */
function changeAtRandom(random: Random): void {
  const { guest, memory } = changingGuest();
  memory.onLook = () => {
    if (random.below(3) > 0) return;
    const at = random.below(2) === 0 ? REQUEST + random.below(80) : random.below(0x400);
    guest.bytes[at] = random.below(256);
  };
  for (let i = 0; i < HISTORY; i++) {
    const page = BigInt(random.below(16)) * 0x1000n;
    const range = { virtStart: page, virtEnd: page + BigInt(random.below(3)) * 0x1000n + 0xfffn };
    const domain = random.below(3);
    const bytes = random.pick([
      () => attachRequest(domain, 8 * (1 + random.below(3))),
      () => mapRequest({ domain, ...range, physStart: page, flags: 1 + random.below(3) }),
      () => unmapRequest(domain, range.virtStart, range.virtEnd),
    ])();
    const { length } = send(guest, bytes);
    assert([-1, 0, 4].includes(length), `used length ${length}`);
    if (length < 0) guest.startQueues();
    if (i % 10 === 9) assertConsistent(guest);
  }
  assertConsistent(guest);
  memory.onLook = () => {};
  guest.device.reset("device");
  guest.startQueues();
  assertEquals(send(guest, attachRequest(7, 8)).counted, "1 OK");
  guest.close();
}

Deno.test(`guest memory that changes under ${INPUTS} requests leaves the device sane`, () => {
  const chosen = Deno.env.get("VIOMMU_HISTORY");
  const first = Number(chosen ?? 0);
  const last = chosen === undefined ? INPUTS / HISTORY - 1 : first;
  for (let history = first; history <= last; history++) {
    try {
      changeAtRandom(new Random(seed() + history * 0x9e3779b1));
    } catch (error) {
      const replay = `VIOMMU_SEED=${seed()} VIOMMU_HISTORY=${history}`;
      throw new Error(`${replay} deno test -A tests/device/iommu/hostile_memory_test.ts`, {
        cause: error,
      });
    }
  }
  console.log(`${(last - first + 1) * HISTORY} inputs, seed ${seed()}`);
});
