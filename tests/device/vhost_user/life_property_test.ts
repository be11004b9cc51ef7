/**
 * Whatever happens to connections and guests, in whatever order: an endpoint that is attached to nothing passes only if
 * the guest has left it free and the bypass byte is set (O4).
 */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { attachRequest, detachRequest } from "../../../device/iommu/driver_requests.ts";
import { READ } from "../../../pagetable/mod.ts";
import { isLong } from "../../long_mode.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import { IommuMachine } from "./iommu_machine.ts";
import { ALL, INVAL, OK, page5 } from "./lived_guest.ts";

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

/** What a guest may rely on, said without the device's states: what each endpoint has, as far as that can be known. */
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
      { numRuns: isLong ? 120 : 60 },
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
