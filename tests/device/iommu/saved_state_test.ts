import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import { attachRequest, mapRequest } from "../../../device/iommu/driver_requests.ts";
import { finish } from "../../../device/iommu/pieces.ts";
import { readState } from "../../../device/iommu/saved_state.ts";
import { isLong } from "../../long_mode.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "../in_process_guest.ts";

/** A guest with two translated domains and a bypass domain. */
function busyGuest(): InProcessGuest {
  const guest = new InProcessGuest();
  guest.request(attachRequest(1, 8), 4);
  guest.request(attachRequest(1, 16), 4);
  guest.request(attachRequest(0xffffffff, 24), 4);
  guest.request(attachRequest(3, 32, 1), 4);
  for (let i = 0n; i < 20n; i++) {
    guest.request(
      mapRequest({
        domain: i % 2n === 0n ? 1 : 0xffffffff,
        virtStart: i * 0x10000n,
        virtEnd: i * 0x10000n + 0x2fffn,
        physStart: 0x1000n * i,
        flags: [1, 2, 3, 7][Number(i % 4n)],
      }),
      4,
    );
  }
  guest.device.writeConfig(Uint8Array.of(0), 36);
  return guest;
}

/** What every endpoint of the tests reaches, page by page. */
function translations(guest: InProcessGuest): unknown[] {
  const list: unknown[] = [guest.device.bypass];
  for (const endpoint of [8, 16, 24, 32, 40]) {
    for (let page = 0; page < 0x140; page++) {
      for (const access of [1, 2]) {
        const walk = guest.device.walk(endpoint, page, access);
        list.push(walk.ok ? [walk.frame, walk.permission] : walk.faultName);
      }
    }
  }
  return list;
}

Deno.test("a device that loads a saved state translates every page as before", () => {
  const first = busyGuest();
  const second = new InProcessGuest();
  second.request(attachRequest(9, 8), 4);
  assertEquals(second.device.loadState(first.device.saveState()), undefined);
  assertEquals(translations(second), translations(first));
  assertEquals(second.device.saveState(), first.device.saveState());
  second.close();
  first.close();
});

Deno.test("a state that does not fit is refused in one line, and the device is as it was", () => {
  const state = busyGuest().device.saveState();
  const small = new InProcessGuest({ ...DEFAULT_OPTIONS, maxMappings: 5 });
  small.request(attachRequest(9, 8), 4);
  small.request(
    mapRequest({ domain: 9, virtStart: 0n, virtEnd: 0xfffn, physStart: 0x7000n, flags: 3 }),
    4,
  );
  const before = translations(small);
  assertStringIncludes(small.device.loadState(state) ?? "", "NOMEM");
  assertEquals(translations(small), before);
  small.close();
});

Deno.test("where a load fails and what was there does not fit any more either, every endpoint is blocked", () => {
  const guest = new InProcessGuest({ ...DEFAULT_OPTIONS, maxPinned: 4 * 4096 });
  guest.request(attachRequest(9, 8), 4);
  const hole = { virtStart: 0n, virtEnd: 0x7fffn, physStart: 0x20_0000n, flags: 3 };
  assertEquals(guest.request(mapRequest({ domain: 9, ...hole }), 4).bytes[0], 0);
  // RAM comes to what was mapped as device memory, and is more than may be pinned.
  const buffer = new ArrayBuffer(0x8000);
  const region = { guestAddress: 0x20_0000, size: 0x8000, buffer, offset: 0 };
  guest.device.memoryAdded(region);
  const error = guest.device.loadState(busyGuest().device.saveState());
  assertStringIncludes(error ?? "", "every endpoint is blocked");
  assertEquals(guest.device.walk(8, 0, 1).faultName, "blocked");
  assertEquals(guest.device.walk(16, 0, 1).faultName, "blocked");
  assertEquals([guest.device.iommu.domains, guest.device.guest.pinnedPages], [[], 0]);
  guest.device.memoryRemoved(region);
  guest.close();
});

Deno.test("a reset undoes a load for good, also where memory changes and a queue goes on with it", () => {
  const guest = new InProcessGuest();
  assertEquals(guest.device.loadState(busyGuest().device.saveState()), undefined);
  guest.device.reset("device");
  const buffer = new ArrayBuffer(0x8000);
  const region = { guestAddress: 0x20_0000, size: 0x8000, buffer, offset: 0 };
  guest.device.memoryAdded(region);
  assertEquals(guest.device.queueBegins(0, "loaded"), undefined);
  assertEquals(guest.device.iommu.domains, []);
  guest.device.memoryRemoved(region);
  guest.close();
});

Deno.test("bytes that are no state are refused in one line, whatever they are", () => {
  const guest = busyGuest();
  const before = translations(guest);
  const state = guest.device.saveState();
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array({ maxLength: 64 }),
        fc.nat(state.length - 1).map((length) => state.slice(0, length)),
        fc.record({ at: fc.nat(state.length - 1), value: fc.integer({ min: 1, max: 255 }) }).map((
          edit,
        ) => state.map((byte, at) => at === edit.at ? byte ^ edit.value : byte)),
      ),
      (bytes) => {
        const error = guest.device.loadState(bytes);
        if (error === undefined) {
          // The change made another state that is possible: it must have been read as one.
          assert(typeof finish(readState(bytes)) === "object");
          assertEquals(guest.device.loadState(state), undefined);
        } else {
          assert(!error.includes("\n"));
        }
        assertEquals(translations(guest), before);
      },
    ),
    { numRuns: isLong ? 60 : 30 },
  );
  guest.close();
});
