/**
 * What the rings say about the guest whose session begins: whether it goes on, or is a new one.
 */
import { assert, assertEquals } from "@std/assert";
import { attachRequest } from "../../../device/iommu/driver_requests.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import { Request } from "../../../device/vhost_user/mod.ts";
import { longs, words } from "../../bytes.ts";
import { IommuMachine } from "./iommu_machine.ts";
import {
  busy,
  BYPASSING,
  GOES_ON,
  map,
  NOENT,
  OK,
  page5,
  reconnect,
  TRANSLATED,
} from "./lived_guest.ts";

Deno.test("what is in a ring outweighs a base at its beginning: the guest goes on", () => {
  // A packed ring is back there with every lap, with the other wrap counter and then with its own (virtio 1.4, 2.8.1).
  for (const laps of [1, 2, 3, 4]) {
    using machine = busy(true);
    let [base, event] = machine.stopRings();
    for (let lap = 0; lap < laps;) {
      assertEquals(machine.startRings([base, event]), 0);
      machine.request(attachRequest(1, TRANSLATED));
      [base, event] = machine.stopRings();
      if ((base & 0x7fff) === 0) lap++;
    }
    assertEquals(base, laps % 2 === 1 ? 0 : 0x8000_8000);
    reconnect(machine);
    machine.readConfig();
    assertEquals(machine.startRings([base, event]), 0);
    assertEquals(page5(machine), [-1, -1, -1, -1], `${laps} laps`);
    assertEquals(machine.warnings.filter((line) => line.includes(GOES_ON)).length, 1);
    assertEquals(machine.request(attachRequest(7, TRANSLATED)), OK, "it is served where it was");
  }
  // A split ring has a used index, which a front end may have lost.
  using machine = busy();
  machine.stopRings();
  reconnect(machine);
  machine.readConfig();
  assertEquals(machine.startRings([0, 0]), 0);
  assertEquals(page5(machine), [-1, -1, -1, -1]);
});

Deno.test("it outweighs a configuration that was read within a session, too", () => {
  for (const keepsRecord of [false, true]) {
    using machine = busy(true);
    const before = machine.stopRings();
    using _record = keepsRecord ? machine.keepRecord() : undefined;
    assertEquals(machine.startRings(before), 0);
    for (let laps = 0; laps < 4;) {
      assertEquals(machine.request(attachRequest(1, TRANSLATED)), OK);
      const bases = machine.stopRings();
      if ((bases[0] & 0x7fff) === 0) laps++;
      machine.readConfig();
      assertEquals(machine.startRings(bases), 0);
      assertEquals(page5(machine), [3, 5, 5, 5], `${laps} laps, base ${bases[0].toString(16)}`);
    }
    assertEquals(machine.request(attachRequest(7, TRANSLATED)), OK, "it is served where it was");
    assertEquals(machine.warnings, []);
  }
});

for (const isPacked of [false, true]) {
  const layout = isPacked ? "packed" : "split";

  Deno.test(`a ring that was never used says nothing beside one that was (${layout})`, () => {
    for (const order of [[0, 1], [1, 0]]) {
      using machine = busy(isPacked);
      const bases = machine.stopRings();
      machine.readConfig();
      // No report has gone through the event queue: it stopped at its beginning, and starts there.
      for (const index of order) assertEquals(machine.startRing(index, bases[index]), 0);
      assertEquals(page5(machine), [3, 5, 5, 5], `rings start in the order ${order}`);
      machine.stopRings();
      machine.newDriver();
      machine.readConfig();
      for (const index of order) assertEquals(machine.startRing(index), 0);
      assertEquals(page5(machine), [5, 5, 5, 5], "a new guest has nothing attached");
    }
  });

  Deno.test(`a new guest's ring is unused, whatever the last guest left in flight (${layout})`, () => {
    for (const requests of [0, 3]) {
      using machine = IommuMachine.start(DEFAULT_OPTIONS, isPacked);
      machine.stopRings();
      using record = machine.keepRecord();
      assertEquals(machine.startRings(), 0);
      for (let i = 0; i < requests; i++) machine.request(attachRequest(1, TRANSLATED));
      machine.leaveInFlight(attachRequest(9, BYPASSING));
      assert(new Uint8Array(record.buffer).some((byte) => byte !== 0));
      machine.stopRings();
      machine.newDriver();
      machine.readConfig();
      assertEquals(machine.startRings(), 0);
      assertEquals(machine.request(attachRequest(1, TRANSLATED)), OK);
      // The request that was in flight would have made domain 9 and attached an endpoint to it.
      assertEquals(machine.request(map(9, 5)), NOENT);
      assertEquals(page5(machine), [-1, 5, 5, 5]);
      assertEquals(machine.warnings, []);
    }
  });
}

Deno.test("a ring that was used outweighs one that starts fresh, in whichever order they start", () => {
  for (const first of [0, 1]) {
    for (const used of [0, 1]) {
      using machine = busy();
      machine.stopRings();
      reconnect(machine);
      machine.newDriver();
      machine.readConfig();
      for (const index of [first, 1 - first]) {
        // The event queue never says that a guest is new: until the other one starts, what was lost is blocked.
        assertEquals(page5(machine)[0], first === 0 && used === 1 && index === 1 ? 5 : -1);
        assertEquals(machine.startRing(index, index === used ? 3 : 0), 0);
      }
      assertEquals(page5(machine), [-1, -1, -1, -1]);
      assertEquals(machine.warnings.filter((line) => line.includes(GOES_ON)).length, 1);
    }
  }
});

Deno.test("a ring that was announced and never ran says nothing when it starts elsewhere", () => {
  using machine = busy();
  machine.stopRings();
  reconnect(machine);
  assertEquals(machine.acknowledged(Request.SET_VRING_BASE, words(0, 5)), 0);
  assertEquals(machine.acknowledged(Request.SET_VRING_KICK, longs(0x100)), 0);
  machine.stopRings();
  machine.newDriver();
  assertEquals(machine.startRings(), 0);
  assertEquals(page5(machine), [-1, -1, -1, -1], "the configuration was not read");
});
