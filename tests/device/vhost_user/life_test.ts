/**
 * Whose life a session serves: connections that end, guests that go on, and guests that are new.
 *
 * Virtio 1.4, 5.13.4 and 5.13.6: the guest's attachments end with DETACH or a reset, and a connection that ends is
 * neither; O4: an endpoint that is attached to nothing, without bypass, does not reach guest memory.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  unmapRequest,
} from "../../../device/iommu/driver_requests.ts";
import { READ } from "../../../pagetable/mod.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import { Request } from "../../../device/vhost_user/mod.ts";
import { longs, words } from "../../bytes.ts";
import { IommuMachine } from "./iommu_machine.ts";

const OK = 0;
const INVAL = 4;
const NOENT = 6;
/** An endpoint with a page, one in a bypass domain, one that was given back, one that was never attached. */
const TRANSLATED = 24;
const BYPASSING = 32;
const GIVEN_BACK = 40;
const NEVER = 48;
const ALL = [TRANSLATED, BYPASSING, GIVEN_BACK, NEVER];
const GOES_ON = "The guest goes on with mappings that this process does not have";

function map(domain: number, page: number): Uint8Array<ArrayBuffer> {
  const virtStart = BigInt(page) * 4096n;
  return mapRequest({
    domain,
    virtStart,
    virtEnd: virtStart + 4095n,
    physStart: 0x3000n,
    flags: 3,
  });
}

/** What page 5 of each endpoint leads to, -1 for a fault. */
function page5({ device }: IommuMachine, endpoints: readonly number[] = ALL): readonly number[] {
  return endpoints.map((endpoint) => {
    const walk = device.walk(endpoint, 5, READ);
    return walk.ok ? walk.frame : -1;
  });
}

/** A guest with an endpoint of each kind. */
function busy(isPacked = false, bypass = true): IommuMachine {
  const machine = IommuMachine.start({ ...DEFAULT_OPTIONS, bypass }, isPacked);
  for (
    const request of [
      attachRequest(1, TRANSLATED),
      map(1, 5),
      attachRequest(2, BYPASSING, 1),
      attachRequest(1, GIVEN_BACK),
      detachRequest(1, GIVEN_BACK),
    ]
  ) assertEquals(machine.request(request), OK);
  assertEquals(page5(machine), [3, 5, bypass ? 5 : -1, bypass ? 5 : -1]);
  return machine;
}

/** A session with memory, before its first ring. */
function reconnect(machine: IommuMachine): void {
  machine.disconnect();
  machine.connect();
  machine.addMemory();
}

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

/** What may happen to a device, over and over. */
type Step =
  | { readonly what: "attach"; readonly domain: number; readonly endpoint: number }
  | { readonly what: "detach" | "access"; readonly endpoint: number }
  | { readonly what: "bypass"; readonly value: number }
  | { readonly what: "go on" | "new guest" | "reset device" | "lose" | "stop and go on" };

const endpoint = fc.constantFrom(...ALL);
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        what: fc.constant("attach" as const),
        domain: fc.integer({ min: 1, max: 3 }),
        endpoint,
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        what: fc.constantFrom("detach" as const, "access" as const),
        endpoint,
      }),
    },
    { weight: 1, arbitrary: fc.record({ what: fc.constant("bypass" as const), value: fc.nat(1) }) },
    {
      weight: 3,
      arbitrary: fc.record({
        what: fc.constantFrom(
          "go on" as const,
          "new guest" as const,
          "reset device" as const,
          "lose" as const,
          "stop and go on" as const,
        ),
      }),
    },
  ),
  { minLength: 5, maxLength: 30 },
);

/** What a guest may rely on, said without the device's states: who has what, as far as anybody can know. */
class Attachments {
  /** For each endpoint: the domain it is in, whether it is free, or that it must be blocked. */
  readonly of: Map<number, number | "free" | "blocked"> = new Map(ALL.map((id) => [id, "free"]));
  bypass = true;

  all(value: "free" | "blocked"): void {
    for (const id of ALL) this.of.set(id, value);
  }

  lose(): void {
    for (const [id, where] of this.of) if (typeof where === "number") this.of.set(id, "blocked");
  }
}

for (const isPacked of [false, true]) {
  Deno.test(`whatever ends or comes back, no endpoint passes that the guest has not left free (${isPacked ? "packed" : "split"})`, () => {
    fc.assert(
      fc.property(steps, (list) => {
        using machine = IommuMachine.start(DEFAULT_OPTIONS, isPacked);
        const model = new Attachments();
        // A ring at its beginning would say nothing of the guest; one request keeps it away from there.
        let wasUsed = false;
        for (const step of list) {
          if (step.what === "attach") {
            // Domain 3 bypasses.
            const flags = step.domain === 3 ? 1 : 0;
            assertEquals(machine.request(attachRequest(step.domain, step.endpoint, flags)), OK);
            model.of.set(step.endpoint, step.domain);
            wasUsed = true;
          } else if (step.what === "detach") {
            const isFree = model.of.get(step.endpoint) === "free";
            assertEquals(machine.request(detachRequest(1, step.endpoint)), isFree ? INVAL : OK);
            model.of.set(step.endpoint, "free");
            wasUsed = true;
          } else if (step.what === "access") {
            const passes = model.of.get(step.endpoint) === 3 ||
              (model.of.get(step.endpoint) === "free" && model.bypass);
            assertEquals(machine.access(step.endpoint, 5, READ) >= 0, passes);
          } else if (step.what === "bypass") {
            machine.writeBypass(step.value);
            model.bypass = step.value === 1;
          } else {
            wasUsed = sessionStep(machine, model, step.what, wasUsed);
          }
          for (const [id, where] of model.of) {
            const passes = where === 3 || (where === "free" && model.bypass);
            assertEquals(page5(machine, [id])[0], passes ? 5 : -1, `${id} after ${step.what}`);
          }
        }
      }),
      { numRuns: 120 },
    );
  });
}

/** A session that ends or stops, and what comes then; whether the request ring was used since it was new. */
function sessionStep(
  machine: IommuMachine,
  model: Attachments,
  what: string,
  wasUsed: boolean,
): boolean {
  if (!wasUsed) {
    assertEquals(machine.request(attachRequest(9, 0x1000)), OK);
    assertEquals(machine.request(detachRequest(9, 0x1000)), OK);
  }
  const bases = machine.stopRings();
  // A packed ring that has come round to its beginning is a case of its own, above.
  if (machine.isPacked && bases[0] === 0x8000_8000) {
    assertEquals(machine.startRings(bases), 0);
    return true;
  }
  if (what === "stop and go on") {
    assertEquals(machine.startRings(bases), 0);
    return true;
  }
  machine.disconnect();
  model.lose();
  assertEquals(
    page5(machine),
    ALL.map((id) => model.of.get(id) === "free" && model.bypass ? 5 : -1),
  );
  machine.connect();
  machine.addMemory();
  if (what === "lose") {
    machine.disconnect();
    machine.connect();
    machine.addMemory();
  }
  if (what === "new guest") {
    machine.newDriver();
    machine.readConfig();
    model.all("free");
    model.bypass = true;
  } else if (what === "reset device") {
    machine.resetDevice();
    machine.newDriver();
    model.all("free");
  } else {
    assertEquals(machine.startRings(bases), 0);
    // Nothing that was free is known to be so of a guest that goes on.
    model.all("blocked");
    return true;
  }
  assertEquals(machine.startRings(), 0);
  return false;
}
