/**
 * Whose life a session serves: connections that end, guests that go on, and guests that are new.
 *
 * Virtio 1.4, 5.13.4 and 5.13.6: the guest's attachments end with DETACH or a reset, and a connection that ends is
 * neither; O4: an endpoint that is attached to nothing, without bypass, does not reach guest memory.
 */
import { assertEquals } from "@std/assert";
import {
  attachRequest,
  detachRequest,
  unmapRequest,
} from "../../../device/iommu/driver_requests.ts";
import { READ } from "../../../pagetable/mod.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import { IommuMachine } from "./iommu_machine.ts";
import {
  ALL,
  busy,
  BYPASSING,
  GOES_ON,
  INVAL,
  map,
  NEVER,
  NOENT,
  OK,
  page5,
  reconnect,
  TRANSLATED,
} from "./lived_guest.ts";

Deno.test("what the guest had attached is blocked when the connection ends, and the rest is as it was", () => {
  using machine = busy();
  machine.disconnect();
  assertEquals(page5(machine), [-1, -1, 5, 5]);
  assertEquals([...machine.device.life.blockedIds].sort((a, b) => a - b), [TRANSLATED, BYPASSING]);
  assertEquals(machine.device.iommu.domains, []);
  assertEquals(
    machine.lines.filter((line) => line.includes("2 endpoints that the guest had")).length,
    1,
  );
  assertEquals(machine.warnings, []);
});

Deno.test("a connection that ends does not bring the bypass byte back, and no session without a ring does", () => {
  using machine = busy();
  machine.writeBypass(0);
  machine.disconnect();
  assertEquals(page5(machine), [-1, -1, -1, -1]);
  machine.connect();
  assertEquals(machine.readConfig(), 0);
  machine.disconnect();
  assertEquals(page5(machine), [-1, -1, -1, -1]);
});

for (const isPacked of [false, true]) {
  const layout = isPacked ? "packed" : "split";

  Deno.test(`a guest that goes on is served with every endpoint blocked, and one warning (${layout})`, () => {
    using machine = busy(isPacked);
    const bases = machine.stopRings();
    reconnect(machine);
    assertEquals(machine.startRings(bases), 0);
    assertEquals(page5(machine), [-1, -1, -1, -1]);
    assertEquals(machine.warnings.filter((line) => line.includes(GOES_ON)).length, 1);
    // A domain that this process does not have is none; what the guest attaches now is served.
    assertEquals(machine.request(unmapRequest(1, 0x5000n, 0x5fffn)), NOENT);
    assertEquals(machine.request(attachRequest(7, TRANSLATED)), OK);
    assertEquals(machine.request(map(7, 5)), OK);
    assertEquals(page5(machine), [3, -1, -1, -1]);
    // DETACH gives back what was attached as far as is known; a second one finds nothing attached (D3).
    for (const endpoint of [TRANSLATED, BYPASSING]) {
      assertEquals(machine.request(detachRequest(7, endpoint)), OK);
      assertEquals(machine.request(detachRequest(7, endpoint)), INVAL);
    }
    assertEquals(page5(machine), [5, 5, -1, -1]);
    assertEquals(machine.request(attachRequest(7, BYPASSING)), OK);
    // And once more: what is attached is lost, what was given back is not.
    machine.disconnect();
    assertEquals(page5(machine), [5, -1, -1, -1]);
  });

  Deno.test(`after the configuration was read, a ring that starts fresh is a new guest's (${layout})`, () => {
    using machine = busy(isPacked);
    machine.writeBypass(0);
    machine.stopRings();
    reconnect(machine);
    machine.newDriver();
    machine.readConfig();
    assertEquals(page5(machine), [-1, -1, -1, -1]);
    assertEquals(machine.startRings(), 0);
    assertEquals(page5(machine), [5, 5, 5, 5], "and the initial bypass holds");
    assertEquals([machine.readConfig(), machine.device.life.state, machine.warnings], [
      1,
      "known",
      [],
    ]);
  });

  Deno.test(`without that it may be a ring that has come round: everything is blocked (${layout})`, () => {
    using machine = busy(isPacked);
    machine.stopRings();
    reconnect(machine);
    machine.newDriver();
    assertEquals(machine.startRings(), 0);
    assertEquals(page5(machine), [-1, -1, -1, -1]);
    assertEquals(machine.warnings.filter((line) => line.includes("may go on")).length, 1);
  });
}

Deno.test("a process that never had a guest blocks everything for one that goes on", () => {
  using machine = new IommuMachine(DEFAULT_OPTIONS, false);
  assertEquals(page5(machine), [5, 5, 5, 5], "at power-on the bypass byte decides");
  machine.connect();
  machine.addMemory();
  machine.readConfig();
  assertEquals(machine.startRings([2, 0]), 0);
  assertEquals(page5(machine), [-1, -1, -1, -1]);
  assertEquals(machine.warnings.length, 1);
  machine.resetDevice();
  assertEquals(page5(machine), [5, 5, 5, 5]);
  assertEquals(machine.startRings(), 0);
  assertEquals(page5(machine), [5, 5, 5, 5]);
  assertEquals(machine.warnings.length, 1);
});

Deno.test("RESET_DEVICE is a new life, and opens nothing that the bypass byte had closed (C3)", () => {
  for (const [initial, written] of [[true, 1], [true, 0], [false, 1], [false, 0]] as const) {
    using machine = busy(false, initial);
    machine.writeBypass(written);
    machine.stopRings();
    reconnect(machine);
    machine.resetDevice();
    const expected = initial && written === 1 ? 5 : -1;
    assertEquals(page5(machine), ALL.map(() => expected), `${initial} ${written}`);
    assertEquals(machine.readConfig(), expected === 5 ? 1 : 0);
    // Nor does the driver that comes then: it is known already that this is a new life.
    machine.newDriver();
    assertEquals(machine.startRings(), 0);
    assertEquals(page5(machine), ALL.map(() => expected), `${initial} ${written}, started`);
  }
});

Deno.test("what a new driver writes into the bypass byte before it starts a queue is not taken back", () => {
  using machine = busy();
  machine.stopRings();
  machine.newDriver();
  machine.readConfig();
  machine.writeBypass(0);
  assertEquals(machine.startRings(), 0);
  assertEquals([machine.readConfig(), machine.device.life.state], [0, "known"]);
  machine.writeBypass(1);
  machine.disconnect();
  machine.connect();
  machine.addMemory();
  machine.newDriver();
  machine.readConfig();
  machine.writeBypass(0);
  assertEquals(machine.startRings(), 0);
  assertEquals(page5(machine), [-1, -1, -1, -1]);
  assertEquals(machine.request(attachRequest(1, TRANSLATED)), OK);
  machine.stopRings();
  machine.newDriver();
  machine.readConfig();
  assertEquals(machine.startRings(), 0);
  assertEquals(machine.readConfig(), 1, "the driver after that has the initial value");
});

Deno.test("it is not taken back either where the ring that tells of the reboot is not the first to start", () => {
  for (const isPacked of [false, true]) {
    using machine = busy(isPacked);
    machine.stopRings();
    machine.newDriver();
    machine.readConfig();
    machine.writeBypass(0);
    assertEquals([machine.startRing(1), machine.startRing(0)], [0, 0]);
    assertEquals([machine.readConfig(), ...page5(machine)], [0, -1, -1, -1, -1]);
    // A life with a report and without a request: the event queue tells, and is described when the other one starts.
    assertEquals(machine.access(NEVER, 9, READ), -1);
    assertEquals(machine.takeReport(true)?.[0], 1);
    machine.stopRings();
    machine.newDriver();
    machine.readConfig();
    machine.writeBypass(0);
    assertEquals(machine.startRingsDescribed(), 0);
    assertEquals([machine.readConfig(), ...page5(machine)], [0, -1, -1, -1, -1]);
    assertEquals(machine.request(attachRequest(1, TRANSLATED)), OK);
    assertEquals(machine.request(map(1, 5)), OK);
  }
});

Deno.test("a guest that has asked for nothing keeps what it closed, and its reports: it may be the one that goes on", () => {
  for (const isPacked of [false, true]) {
    for (const isNew of [false, true]) {
      using machine = IommuMachine.start(DEFAULT_OPTIONS, isPacked);
      machine.writeBypass(0);
      assertEquals(machine.access(NEVER, 9, READ), -1);
      const bases = machine.stopRings();
      if (isNew) machine.newDriver();
      machine.readConfig();
      assertEquals(machine.startRings(bases), 0);
      assertEquals([machine.readConfig(), ...page5(machine)], [0, -1, -1, -1, -1]);
      assertEquals(machine.takeReport(true)?.[0], 1);
      assertEquals(machine.request(attachRequest(1, TRANSLATED)), OK);
    }
  }
});

Deno.test("reports that have not reached the guest still do, unless a new guest has come", () => {
  for (const isNew of [false, true]) {
    using machine = busy();
    assertEquals(machine.access(TRANSLATED, 9, READ), -1);
    const [base] = machine.stopRings();
    reconnect(machine);
    assertEquals(machine.access(TRANSLATED, 5, READ), -1);
    if (isNew) {
      machine.newDriver();
      machine.readConfig();
    }
    assertEquals(machine.startRings(isNew ? undefined : [base, 0]), 0);
    const reports = [machine.takeReport(true), machine.takeReport(true)];
    // Reason MAPPING (2) at 0x9008, then DOMAIN (1) at 0x5008 (5.13.6.9).
    const seen = reports.map((report) => report && [report[0], report[8], report[16], report[17]]);
    assertEquals(seen, isNew ? [undefined, undefined] : [[2, 24, 8, 0x90], [1, 24, 8, 0x50]]);
  }
});
