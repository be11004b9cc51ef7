/** A device that was saved and loaded, at any time and in any way, is the one that never was. */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  attachRequest,
  detachRequest,
  probeRequest,
} from "../../../device/iommu/driver_requests.ts";
import { READ, WRITE } from "../../../pagetable/mod.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import { isLong } from "../../long_mode.ts";
import { IommuMachine, type Snapshot } from "./iommu_machine.ts";
import { ENDPOINTS, map, PAGES, unmap, WRONG_STATE } from "./page_requests.ts";

/** What a guest or its VMM does. */
type Step =
  | { readonly what: "request"; readonly bytes: Uint8Array }
  | {
    readonly what: "access";
    readonly endpoint: number;
    readonly page: number;
    readonly access: number;
  }
  | { readonly what: "report"; readonly offers: boolean }
  | { readonly what: "bypass"; readonly value: number }
  | { readonly what: "stop" | "reset device" | "restart" };

const domain = fc.constantFrom(1, 2, 0xffff_ffff);
const endpoint = fc.constantFrom(...ENDPOINTS);
const page = fc.nat(PAGES - 1);
const size = fc.integer({ min: 1, max: 3 });
const request = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.tuple(domain, endpoint, fc.nat({ max: 4 })).map(([d, e, bypass]) =>
      attachRequest(d, e, bypass === 0 ? 1 : 0)
    ),
  },
  { weight: 1, arbitrary: fc.tuple(domain, endpoint).map(([d, e]) => detachRequest(d, e)) },
  {
    weight: 5,
    arbitrary: fc.tuple(domain, page, size, page).map(([d, p, s, f]) => map(d, p, s, f)),
  },
  { weight: 3, arbitrary: fc.tuple(domain, page, size).map(([d, p, s]) => unmap(d, p, s)) },
  { weight: 1, arbitrary: endpoint.map((e) => probeRequest(e)) },
);
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    { weight: 20, arbitrary: fc.record({ what: fc.constant("request" as const), bytes: request }) },
    {
      weight: 5,
      arbitrary: fc.record({
        what: fc.constant("access" as const),
        endpoint,
        page,
        access: fc.constantFrom(READ, WRITE),
      }),
    },
    {
      weight: 5,
      arbitrary: fc.record({ what: fc.constant("report" as const), offers: fc.boolean() }),
    },
    { weight: 1, arbitrary: fc.record({ what: fc.constant("bypass" as const), value: fc.nat(1) }) },
    { weight: 2, arbitrary: fc.record({ what: fc.constant("stop" as const) }) },
    {
      weight: 1,
      arbitrary: fc.record({ what: fc.constantFrom("reset device" as const, "restart" as const) }),
    },
  ),
  { maxLength: 25 },
);

/** Does a step; what the guest sees of it. */
function take(machine: IommuMachine, step: Step): unknown {
  switch (step.what) {
    case "request":
      return machine.request(step.bytes);
    case "access":
      return machine.access(step.endpoint, step.page, step.access);
    case "report":
      return machine.takeReport(step.offers);
    case "bypass":
      return machine.writeBypass(step.value);
    case "stop":
      return machine.startRings(machine.stopRings());
    case "reset device":
      machine.resetDevice();
      machine.newDriver();
      return machine.startRings();
    case "restart":
      machine.stopRings();
      machine.newDriver();
      machine.readConfig();
      return machine.startRings();
  }
}

/** How a state may come back, after a snapshot. What happens on the way must not show. */
const WAYS: Readonly<Record<string, (machine: IommuMachine, { state }: Snapshot) => void>> = {
  "another process, memory first": (machine, { state }) => {
    machine.replaceDevice();
    machine.connect();
    machine.addMemory();
    assertEquals(machine.load(state), 0);
  },
  "another process, state first": (machine, { state }) => {
    machine.replaceDevice();
    machine.connect();
    assertEquals(machine.load(state), 0);
    machine.addMemory();
  },
  "another process, loaded twice, with memory that goes and comes": (machine, { state }) => {
    machine.replaceDevice();
    machine.connect();
    machine.addMemory();
    assertEquals(machine.load(state), 0);
    machine.removeMemory();
    assertEquals(machine.load(state), 0);
    machine.addMemory();
  },
  "another front end in between": (machine, { state }) => {
    machine.replaceDevice();
    machine.connect();
    assertEquals(machine.load(state), 0);
    machine.disconnect();
    machine.connect();
    machine.addMemory();
    assertEquals(machine.load(state), 0);
  },
  "the same session": (machine, { state }) => assertEquals(machine.load(state), 0),
  "the same session, reset first": (machine, { state }) => {
    machine.resetDevice();
    machine.readConfig();
    assertEquals(machine.load(state), 0);
    machine.readConfig();
  },
  "the same session, a state that is none before": (machine, { state }) => {
    assertEquals(machine.load(state.slice(0, -1)), WRONG_STATE);
    assertEquals(machine.load(state), 0);
  },
};

for (const isPacked of [false, true]) {
  Deno.test(`a device that was saved and loaded is the one that never was (${isPacked ? "packed" : "split"})`, () => {
    fc.assert(
      fc.property(
        steps,
        steps,
        steps,
        fc.constantFrom(...Object.keys(WAYS)),
        fc.boolean(),
        (before, lost, behind, way, isReverted) => {
          using machine = IommuMachine.start(DEFAULT_OPTIONS, isPacked);
          using unbroken = IommuMachine.start(DEFAULT_OPTIONS, isPacked);
          for (const step of before) assertEquals(take(machine, step), take(unbroken, step));
          const snapshot = machine.snapshot();
          assertEquals(unbroken.stopRings(), snapshot.bases);
          if (isReverted) {
            assertEquals(machine.startRings(snapshot.bases), 0);
            for (const step of lost) take(machine, step);
            machine.stopRings();
            machine.revert(snapshot);
          }
          WAYS[way](machine, snapshot);
          assertEquals(machine.startRings(snapshot.bases), 0);
          assertEquals(unbroken.startRings(snapshot.bases), 0);
          assertEquals(machine.reached(ENDPOINTS, PAGES), unbroken.reached(ENDPOINTS, PAGES), way);
          for (const step of behind) {
            assertEquals(take(machine, step), take(unbroken, step), `${way}: ${step.what}`);
          }
          assertEquals(machine.reached(ENDPOINTS, PAGES), unbroken.reached(ENDPOINTS, PAGES), way);
          assertEquals(machine.readConfig(), unbroken.readConfig());
          assertEquals(machine.stopRings(), unbroken.stopRings());
          assertEquals(machine.memory, unbroken.memory);
          assertEquals(machine.warnings.filter((line) => line.includes("goes on")), []);
        },
      ),
      { numRuns: isLong ? 100 : 40 },
    );
  });
}
