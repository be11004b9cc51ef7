import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { READ, WRITE } from "../../../pagetable/mod.ts";
import { type DeviceEvent, EVENTS_KEPT } from "../../../device/iommu/device_events.ts";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  probeRequest,
  statusName,
  unmapRequest,
} from "../../../device/iommu/driver_requests.ts";
import { REFUSALS } from "../../../device/iommu/refusals.ts";
import { STATEMENTS } from "../../conformance/statements.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "../in_process_guest.ts";

/** A guest with endpoint 8 in domain 2, and pages 5 and 6 mapped. */
function mappedGuest(): InProcessGuest {
  const guest = new InProcessGuest({ ...DEFAULT_OPTIONS, bypass: false });
  guest.request(attachRequest(2, 8), 4);
  guest.request(mapRequest(MAPPING), 4);
  return guest;
}

const MAPPING = { domain: 2, virtStart: 0x5000n, virtEnd: 0x6fffn, physStart: 0x9000n, flags: 1 };

function eventsOf(guest: InProcessGuest, after = 0): readonly DeviceEvent[] {
  return [...guest.device.events.since(after)];
}

/** The refusal that a request ends in: its statement, and the values. */
function refusalOf(request: Uint8Array): unknown {
  using guest = mappedGuest();
  const { last } = guest.device.events;
  const answer = guest.request(request, 4);
  const [event, ...others] = eventsOf(guest, last);
  assertEquals(others, []);
  assert(event.kind === "refused", JSON.stringify(event));
  assertEquals(statusName(answer.bytes, answer.length), event.status);
  return [event.request, event.status, event.statement, event.values];
}

Deno.test("a refused request is recorded with the requirement that it does not meet, and its values", () => {
  const range = { domain: 2, virt_start: "0x5000", virt_end: "0x6fff" };
  assertEquals(refusalOf(mapRequest(MAPPING)), ["MAP", "INVAL", "M2", range]);
  assertEquals(refusalOf(mapRequest({ ...MAPPING, domain: 9 })), ["MAP", "NOENT", "M4", {
    domain: 9,
  }]);
  assertEquals(refusalOf(mapRequest({ ...MAPPING, flags: 0x81 })), ["MAP", "INVAL", "M3", {
    flags: "0x81",
  }]);
  assertEquals(refusalOf(mapRequest({ ...MAPPING, flags: 0 })), ["MAP", "INVAL", null, {
    flags: "0x0",
  }]);
  assertEquals(
    refusalOf(mapRequest({ ...MAPPING, virtStart: 0x8001n, virtEnd: 0x8fffn })),
    ["MAP", "RANGE", "M1", { virt_start: "0x8001", virt_end: "0x8fff", phys_start: "0x9000" }],
  );
  assertEquals(
    refusalOf(mapRequest({ ...MAPPING, virtStart: 0xfee00000n, virtEnd: 0xfee00fffn })),
    ["MAP", "INVAL", "R4", { domain: 2, virt_start: "0xfee00000", virt_end: "0xfee00fff" }],
  );
  assertEquals(refusalOf(unmapRequest(2, 0x5000n, 0x5fffn)), [
    "UNMAP",
    "RANGE",
    "U4",
    { domain: 2, virt_start: "0x5000", virt_end: "0x5fff" },
  ]);
  assertEquals(refusalOf(unmapRequest(3, 0n, 0xfffn)), ["UNMAP", "NOENT", "U2", { domain: 3 }]);
  assertEquals(refusalOf(attachRequest(2, 0x7fffffff)), ["ATTACH", "NOENT", "A3", {
    endpoint: 0x7fffffff,
  }]);
  assertEquals(refusalOf(detachRequest(2, 16)), ["DETACH", "INVAL", "D3", {
    domain: 2,
    endpoint: 16,
  }]);
  assertEquals(refusalOf(probeRequest(8)), ["PROBE", "INVAL", "P7", { endpoint: 8 }]);
  assertEquals(refusalOf(new Uint8Array(8).fill(3, 0, 1)), ["MAP", "INVAL", null, {}]);
});

Deno.test("every key of a refusal that looks like a requirement is one of docs/conformance.md", () => {
  const known = new Set(STATEMENTS.map(({ id }) => id));
  const keys = Object.keys(REFUSALS).filter((key) => /^[A-Z]\d/.test(key));
  assert(keys.length > 15);
  assertEquals(keys.filter((key) => !known.has(key)), []);
});

Deno.test("a fault is recorded with the path to the entry that refused, a detachment and a reset as such", () => {
  using guest = mappedGuest();
  const { events } = guest.device;
  assertEquals(eventsOf(guest).map(({ kind }) => kind), ["attach"]);
  const before = events.last;
  guest.device.refused(8, 7, 0x123, READ);
  guest.device.refused(8, 5, 0, WRITE);
  guest.device.refused(16, 5, 0, READ | WRITE);
  const [absent, readOnly, unattached] = eventsOf(guest, before);
  assert(absent.kind === "fault" && readOnly.kind === "fault" && unattached.kind === "fault");
  // VT-d 7.1.3: fault reason 6, a read of what is not present; 5, a write without permission.
  assertEquals([absent.endpoint, absent.address, absent.access], [8, "0x7123", "r"]);
  assertEquals([absent.reason, absent.code, absent.format], ["not-present", "0x6", "vtd-ss"]);
  assertEquals(absent.path.map(({ table }) => table), ["root", "context", "L4", "L3", "L2", "L1"]);
  assertEquals([readOnly.code, readOnly.path.at(-1)!.fields["R"]], ["0x5", 1]);
  assertEquals([unattached.reason, unattached.access, unattached.path], ["blocked", "rw", []]);
  guest.request(detachRequest(2, 8), 4);
  guest.device.reset("device");
  const [detach, reset] = eventsOf(guest, unattached.number);
  assert(detach.kind === "detach");
  assertEquals([detach.endpoint, detach.domain, reset.kind], [8, 2, "reset"]);
});

Deno.test("the last events are kept in their order, faults and others each in a ring of their own", () => {
  fc.assert(
    fc.property(fc.array(fc.boolean(), { maxLength: 3 * EVENTS_KEPT }), (isFault) => {
      using guest = mappedGuest();
      const { device } = guest;
      const start = device.events.last;
      isFault.forEach((fault, i) => {
        if (fault) device.refused(8, 100 + i, 0, READ);
        else guest.request(mapRequest({ ...MAPPING, domain: 1000 + i }), 4);
      });
      assertEquals(device.events.last, start + isFault.length);
      const kept = (fault: boolean) =>
        isFault.flatMap((each, i) => each === fault ? [start + 1 + i] : []).slice(-EVENTS_KEPT);
      const expected = [...kept(true), ...kept(false)].sort((a, b) => a - b);
      const found = eventsOf(guest, start);
      assertEquals(found.map(({ number }) => number), expected);
      for (const event of found) {
        const i = event.number - start - 1;
        if (event.kind === "fault") assertEquals(event.address, `0x${(100 + i).toString(16)}000`);
        else assert(event.kind === "refused" && event.values.domain === 1000 + i);
      }
    }),
    { numRuns: 20 },
  );
});
