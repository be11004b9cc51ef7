/**
 * Everything that can happen between the load of a state and the start of the rings, and behind it.
 *
 * vhost-user.rst, "Migrating back-end state": CHECK_DEVICE_STATE says whether the state was taken, and the device goes
 * on from there as if it had never been anywhere else.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { attachRequest, detachRequest } from "../../../device/iommu/driver_requests.ts";
import type { RemoteIotlbListener } from "../../../device/iommu/iotlb_listeners.ts";
import type { DeviceOptions } from "../../../device/iommu/iommu_device.ts";
import { READ } from "../../../pagetable/mod.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import { IommuMachine } from "./iommu_machine.ts";
import { ENDPOINTS, map, OK, unmap, WRONG_STATE } from "./page_requests.ts";

/** A machine whose endpoint 24 has some pages, one mapping each. */
function mapped(pages: number, isPacked = false): IommuMachine {
  const machine = IommuMachine.start(DEFAULT_OPTIONS, isPacked);
  assertEquals(machine.request(attachRequest(1, 24)), OK);
  for (let page = 0; page < pages; page++) assertEquals(machine.request(map(1, page)), OK);
  return machine;
}

/** An IOTLB listener in another process that looks at a page whenever it is told something. */
class Looker implements RemoteIotlbListener {
  /** Frames that it has found. */
  readonly found: Set<number> = new Set();
  /** Whether it was told that everything may have changed. */
  isInvalidated = false;
  readonly #look: () => number;

  constructor(look: () => number) {
    this.#look = look;
  }

  invalidate(): void {
    this.found.add(this.#look());
  }

  invalidateAll(): void {
    this.isInvalidated = true;
    this.found.add(this.#look());
  }

  mapped(): void {
    this.found.add(this.#look());
  }
}

const misfits: Readonly<Record<string, [DeviceOptions, string]>> = {
  "too many mappings": [{ ...DEFAULT_OPTIONS, maxMappings: 3 }, "NOMEM"],
  "too many domains": [{ ...DEFAULT_OPTIONS, maxDomains: 0 }, "NOMEM"],
  "no such endpoint": [
    { ...DEFAULT_OPTIONS, endpoints: [{ first: 0, last: 8, format: "vtd-ss" }] },
    "NOENT",
  ],
  "a reserved range": [
    { ...DEFAULT_OPTIONS, reserved: [{ firstPage: 2, lastPage: 3, subtype: 0 }] },
    "INVAL",
  ],
  "no table memory": [{ ...DEFAULT_OPTIONS, maxTableMemory: 2 * 4096 }, "NOMEM"],
};

for (const [what, [options, status]] of Object.entries(misfits)) {
  Deno.test(`a state that does not fit is refused when it is loaded, with and without memory: ${what}`, () => {
    using source = mapped(6);
    const { state } = source.snapshot();
    for (const isMemoryFirst of [false, true]) {
      using target = new IommuMachine(options, false);
      target.connect();
      if (isMemoryFirst) target.addMemory();
      assertEquals(target.load(state), WRONG_STATE);
      assertStringIncludes(target.warnings.join(), status);
      assertEquals(target.device.iommu.domains, []);
      assertEquals(target.device.life.state, "none", "the device is as it was");
      assertEquals(target.reached([8], 1)[0], "8: 0 1 → 0 3");
    }
  });
}

Deno.test("what only memory makes not fit is refused when a ring starts, and everything is blocked", () => {
  using source = mapped(6);
  assertEquals(source.request(map(1, 100, 8, 0)), OK);
  const { state, bases } = source.snapshot();
  using target = new IommuMachine({ ...DEFAULT_OPTIONS, maxPinned: 4 * 4096 }, false);
  target.connect();
  assertEquals(target.load(state), 0, "nothing says yet which of these pages are RAM");
  target.addMemory();
  const looker = new Looker(() => target.device.walk(32, 0, READ).frame);
  target.device.iotlbListeners.addRemote(32, looker);
  assertEquals(target.startRing(0, bases[0]), 1);
  assert(looker.isInvalidated, "an endpoint that was never attached is blocked, too");
  assertStringIncludes(target.warnings.join(), "queue 0 cannot run: Cannot load the state");
  for (const line of target.reached(ENDPOINTS, 3)) assertStringIncludes(line, "blocked");
  // Without that memory it fits.
  target.removeMemory();
  target.disconnect();
  for (const line of target.reached(ENDPOINTS, 3)) assertStringIncludes(line, "blocked");
});

Deno.test("a state that a front end loaded and left is not the next one's: its endpoints are blocked", () => {
  for (const hasMemory of [false, true]) {
    using source = mapped(1);
    const { state, bases } = source.snapshot();
    using target = new IommuMachine(DEFAULT_OPTIONS, false);
    target.connect();
    if (hasMemory) target.addMemory();
    assertEquals(target.load(state), 0);
    assertEquals(target.reached([24], 1)[0], "24: 0 1 → 3 3");
    target.disconnect();
    assertStringIncludes(target.reached([24], 1)[0], "blocked");
    target.connect();
    target.addMemory();
    assertStringIncludes(target.reached([24], 1)[0], "blocked");
    assertEquals(target.startRings(bases), 0);
    for (const line of target.reached(ENDPOINTS, 1)) assertStringIncludes(line, "blocked");
    assertEquals(target.warnings.length, 1);
  }
});

Deno.test("RESET_DEVICE between load and start undoes the load", () => {
  for (const hasMemory of [false, true]) {
    using source = mapped(1);
    const { state } = source.snapshot();
    using target = new IommuMachine(DEFAULT_OPTIONS, false);
    target.connect();
    if (hasMemory) target.addMemory();
    assertEquals(target.load(state), 0);
    target.resetDevice();
    if (!hasMemory) target.addMemory();
    assertEquals(target.startRings(), 0);
    assertEquals(target.reached([24], 1)[0], "24: 0 1 → 0 3");
    assertEquals([target.device.iommu.domains, target.warnings], [[], []]);
  }
});

Deno.test("RESET_DEVICE ends a load that is under way, wherever the bytes are", () => {
  for (const isWhole of [false, true]) {
    using source = mapped(1);
    const { state } = source.snapshot();
    using target = new IommuMachine(DEFAULT_OPTIONS, false);
    target.connect();
    target.addMemory();
    const [begun, ended] = isWhole
      ? [() => {}, () => target.resetDevice()]
      : [() => target.resetDevice(), () => {}];
    assertEquals(target.load(state, begun, ended), WRONG_STATE);
    assertStringIncludes(target.warnings.join(), "the device was reset meanwhile");
    assertEquals(target.device.iommu.domains, []);
    assertEquals(target.startRings(), 0);
    assertEquals(target.reached([24], 1)[0], "24: 0 1 → 0 3");
    // It is the device that has forgotten, and not the front end that may not load again.
    target.stopRings();
    assertEquals(target.load(state), 0);
  }
});

Deno.test("RESET_DEVICE does not end a save: its bytes are of before", () => {
  using source = mapped(1);
  source.stopRings();
  const state = source.save(() => source.resetDevice());
  using target = new IommuMachine(DEFAULT_OPTIONS, false);
  target.connect();
  assertEquals(target.load(state), 0);
  assertEquals(target.reached([24], 1)[0], "24: 0 1 → 3 3");
});

for (const isPacked of [false, true]) {
  Deno.test(`after a load no start is a new life: back to a snapshot in one session (${isPacked ? "packed" : "split"})`, () => {
    using machine = mapped(1, isPacked);
    const snapshot = machine.snapshot();
    assertEquals(snapshot.bases[1], isPacked ? 0x8000_8000 : 0);
    assertEquals(machine.startRings(snapshot.bases), 0);
    assertEquals(machine.access(24, 7, READ), -1);
    assert(machine.takeReport(true) !== undefined);
    machine.readConfig();
    const [_, eventBase] = machine.stopRings();
    assert(eventBase !== snapshot.bases[1], "the event queue has gone on");
    machine.revert(snapshot);
    assertEquals(machine.load(snapshot.state), 0);
    machine.readConfig();
    assertEquals(machine.startRings(snapshot.bases), 0);
    assertEquals(machine.reached([24], 1)[0], "24: 0 1 → 3 3");
    assertEquals(machine.request(unmap(1, 0)), OK);
  });
}

Deno.test("a state that comes to its end after a ring has started is refused, and the guest keeps what it has", () => {
  using source = mapped(3);
  const { state } = source.snapshot();
  using target = mapped(1);
  const bases = target.stopRings();
  const before = target.reached(ENDPOINTS, 3);
  assertEquals(target.load(state, () => assertEquals(target.startRings(bases), 0)), WRONG_STATE);
  assertStringIncludes(target.warnings.join(), "a queue runs");
  assertEquals(target.reached(ENDPOINTS, 3), before);
  assertEquals(target.request(unmap(1, 0)), OK);
});

Deno.test("a mapping of RAM is one of RAM, whether the state or the memory comes first", () => {
  for (const isMemoryFirst of [false, true]) {
    using machine = mapped(3);
    assertEquals(machine.device.guest.pinnedPages, 1, "three mappings of one page");
    const { state, bases } = machine.snapshot();
    machine.replaceDevice();
    machine.connect();
    if (isMemoryFirst) machine.addMemory();
    assertEquals(machine.load(state), 0);
    if (!isMemoryFirst) machine.addMemory();
    assertEquals(machine.startRings(bases), 0);
    assertEquals(machine.device.guest.pinnedPages, 1);
  }
});

Deno.test("what is not known of a guest goes along with its state: blocked here is blocked there", () => {
  using machine = mapped(1);
  const { bases } = machine.snapshot();
  machine.disconnect();
  machine.connect();
  machine.addMemory();
  assertEquals(machine.startRings(bases), 0);
  assertEquals(machine.request(attachRequest(5, 32)), OK);
  assertEquals(machine.request(detachRequest(5, 40)), OK);
  const before = machine.reached([...ENDPOINTS, 48], 2);
  const { state, bases: later } = machine.snapshot();
  machine.replaceDevice();
  machine.connect();
  machine.addMemory();
  assertEquals(machine.load(state), 0);
  assertEquals(machine.startRings(later), 0);
  assertEquals(machine.reached([...ENDPOINTS, 48], 2), before);
  assertEquals(machine.warnings.length, 1, "the first process has said it");
});

Deno.test("a state of version 1 is loaded, too", () => {
  const state = new Uint8Array(16 + 16 + 4 + 28);
  const view = new DataView(state.buffer);
  [0x4d4f4956, 1, 1, 1, /* domain */ 7, 0, 1, 1, /* endpoint */ 24].forEach((word, i) =>
    view.setUint32(i * 4, word, true)
  );
  [5, 5, 3].forEach((page, i) => view.setFloat64(36 + 8 * i, page, true));
  view.setUint32(60, 3, true);
  using machine = new IommuMachine(DEFAULT_OPTIONS, false);
  machine.connect();
  assertEquals(machine.load(state), 0);
  assertEquals(machine.reached([24], 6).at(-1), "24: 5 2 → 3 3");
  assertEquals(machine.device.bypass, true);
});

Deno.test("while a life changes, no endpoint gets access that it does not have afterwards", () => {
  const before = 3;
  const ways: Readonly<Record<string, [(machine: IommuMachine) => void, number]>> = {
    "RESET_DEVICE": [(machine) => machine.resetDevice(), 5],
    "a new guest, whose initial bypass is off": [(machine) => {
      machine.stopRings();
      machine.newDriver();
      machine.readConfig();
      machine.startRings();
    }, -1],
    "a lost connection": [(machine) => machine.disconnect(), -1],
    "a lost connection, and a guest that goes on": [(machine) => {
      const bases = machine.stopRings();
      machine.disconnect();
      machine.connect();
      machine.addMemory();
      machine.startRings(bases);
    }, -1],
    "a state that is loaded": [(machine) => {
      const { state, bases } = machine.snapshot();
      assertEquals(machine.load(state), 0);
      machine.startRings(bases);
    }, before],
    "a state that is loaded, and then memory comes": [(machine) => {
      const { state, bases } = machine.snapshot();
      assertEquals(machine.load(state), 0);
      machine.removeMemory();
      machine.addMemory();
      machine.startRings(bases);
    }, before],
    "a state that does not fit": [(machine) => {
      const { state } = machine.snapshot();
      // The endpoint of the only domain is another: one that does not exist.
      new DataView(state.buffer).setUint32(24 + 16, 0x10000, true);
      assertEquals(machine.load(state), WRONG_STATE);
    }, before],
  };
  for (const [way, [change, after]] of Object.entries(ways)) {
    using machine = IommuMachine.start({ ...DEFAULT_OPTIONS, bypass: false }, false);
    machine.writeBypass(1);
    for (const request of [attachRequest(1, 24), map(1, 5)]) {
      assertEquals(machine.request(request), OK);
    }
    const look = () => {
      const walk = machine.device.walk(24, 5, READ);
      return walk.ok ? walk.frame : -1;
    };
    const looker = new Looker(look);
    assertEquals(look(), before);
    machine.device.iotlbListeners.addRemote(24, looker);
    change(machine);
    assertEquals(look(), after, way);
    for (const frame of looker.found) {
      assert([before, -1, after].includes(frame), `${way}: ${frame}`);
    }
    assert(looker.found.size > 0, way);
    machine.device.iotlbListeners.remove(24, looker);
  }
});
