/**
 * Whatever a guest, its VMM and the host do, a device of the host reaches what a walk of its endpoint says.
 *
 * The exceptions are those that `device/iommu/README.md` names: before the first ATTACH the VMM's attachment is the
 * bypass; an endpoint that is attached to nothing goes with its host group; a bypass that the host refuses is a block.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { attachRequest, detachRequest } from "../../../device/iommu/driver_requests.ts";
import { Turn } from "../../../device/iommu/turn.ts";
import { EBUSY } from "../../../iommufd/mod.ts";
import { EINVAL, ENOMEM, OK, READ } from "../../../pagetable/mod.ts";
import type { MemoryRegion, Queue } from "../../../vring/mod.ts";
import { isLong } from "../../long_mode.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import { mapPages, Stepped, unmapPages } from "../stepped_guest.ts";
import { type FakeDevice, FakeHost } from "./fake_host.ts";

const [A, B, C] = [8, 16, 24];
const QUEUE = {} as Queue;
/** First pages of two regions of RAM, of eight pages each, and of what is never RAM. */
const [ONE, OTHER, DEVICE] = [0x1000, 0x2000, 0x3000];
/** A MAP from here on is filled in steps. */
const LARGE = 2 ** 20;
/** The 64 pages that are looked at. */
const PAGES = [
  ...Array.from({ length: 40 }, (_, page) => page),
  ...[ONE, OTHER].flatMap((first) => Array.from({ length: 8 }, (_, i) => first + i)),
  ...[0, 1, 2, 7, 8, 65535, 65536, 131071].map((offset) => LARGE + offset),
];

function ram(firstPage: number): MemoryRegion {
  return { guestAddress: firstPage * 4096, size: 32768, buffer: new ArrayBuffer(32768), offset: 0 };
}

const endpoint = fc.constantFrom(A, B, C);
const domain = fc.integer({ min: 1, max: 3 });
const action = fc.oneof(
  fc.record({
    kind: fc.constant("attach" as const),
    endpoint,
    domain,
    flags: fc.constantFrom(0, 0, 1),
  }),
  fc.record({ kind: fc.constant("attach" as const), endpoint, domain, flags: fc.constant(0) }),
  fc.record({ kind: fc.constant("detach" as const), endpoint, domain }),
  fc.record({
    kind: fc.constant("map" as const),
    domain,
    page: fc.nat({ max: 39 }),
    count: fc.integer({ min: 1, max: 8 }),
    frame: fc.constantFrom(ONE, OTHER, DEVICE),
  }),
  fc.record({ kind: fc.constant("large" as const), domain, frame: fc.constantFrom(ONE, OTHER) }),
  fc.record({
    kind: fc.constant("unmap" as const),
    domain,
    page: fc.constantFrom(0, 10, LARGE),
    count: fc.constantFrom(20, 40, 2 ** 21),
  }),
  fc.record({
    kind: fc.constant("reset" as const),
    reset: fc.constantFrom("device" as const, "system" as const, "doubtful" as const),
  }),
  fc.record({ kind: fc.constant("bypass" as const), on: fc.boolean() }),
  fc.record({ kind: fc.constant("memory" as const), slot: fc.nat({ max: 1 }) }),
  fc.record({
    kind: fc.constant("session" as const),
    sign: fc.constantFrom("new" as const, "used" as const, "unused" as const),
  }),
  fc.record({ kind: fc.constantFrom("config" as const, "pause" as const, "load" as const) }),
  fc.record({ kind: fc.constant("device" as const), endpoint: fc.constantFrom(A, B) }),
);
const step = fc.record({
  action,
  /** Which call of the host fails, if it gets so far, and how. */
  fault: fc.option(
    fc.record({
      calls: fc.array(fc.nat({ max: 6 }), { minLength: 1, maxLength: 3 }),
      error: fc.constantFrom(ENOMEM, EINVAL, EBUSY),
    }),
    { freq: 2 },
  ),
});
type Action = Parameters<Parameters<typeof action["map"]>[0]>[0];

/** A guest with three devices of a host, and what is known of both. */
class History {
  readonly host = new FakeHost();
  readonly guest: Stepped;
  readonly #devices = new Map<number, FakeDevice>();
  readonly #regions: (MemoryRegion | undefined)[] = [undefined, undefined];

  constructor(bypass: boolean) {
    this.guest = new Stepped({ ...DEFAULT_OPTIONS, bypass });
    this.guest.device.hosts.onWarning = (line) => {
      if (line.includes("cannot bypass")) this.host.stuck.add(line.includes("00:03.0") ? 2 : 1);
    };
    for (const id of [A, B, C]) this.#add(id);
    this.#memory(0);
    this.#memory(1);
    this.#begin("new");
  }

  do(action: Action): void {
    const { guest } = this;
    const { device } = guest;
    switch (action.kind) {
      case "attach":
        guest.request(attachRequest(action.domain, action.endpoint, action.flags));
        break;
      case "detach":
        guest.request(detachRequest(action.domain, action.endpoint));
        break;
      case "map":
        if (action.frame !== DEVICE && !this.#has(action.frame)) break;
        guest.request(
          mapPages(action.domain, action.page, action.page + action.count - 1, action.frame),
        );
        break;
      case "large":
        // Beyond the RAM it leads to none; what was none stays so.
        if (!this.#has(ONE) || !this.#has(OTHER)) break;
        guest.request(mapPages(action.domain, LARGE, LARGE + 2 ** 17 - 1, action.frame));
        break;
      case "unmap":
        guest.request(unmapPages(action.domain, action.page, action.page + action.count - 1));
        break;
      case "reset":
        device.reset(action.reset);
        break;
      case "bypass":
        device.writeConfig(new Uint8Array([action.on ? 1 : 0]), 36);
        break;
      case "memory":
        this.#memory(action.slot);
        break;
      case "session":
        device.sessionEnds();
        for (const id of [A, B, C]) this.#checkBlocked(id);
        device.queueStopped(0);
        device.disconnected();
        for (const id of [A, B, C]) this.#checkBlocked(id);
        this.#begin(action.sign);
        break;
      case "config":
        device.readConfig(new Uint8Array(40), 0);
        break;
      case "pause":
        device.queueStopped(0);
        this.check();
        device.queueStarted(0, QUEUE);
        break;
      case "load":
        device.loadState(device.saveState());
        break;
      case "device":
        if (device.hosts.of(action.endpoint) === undefined) this.#add(action.endpoint);
        else {
          assertEquals(device.passthrough.remove(action.endpoint), OK);
          this.#devices.delete(action.endpoint);
        }
    }
    while (device.hasWork) device.work(new Turn());
  }

  /** Each device reaches what its endpoint's walk says. */
  check(): void {
    const { hosts, endpoints } = this.guest.device;
    for (const { group } of hosts.devices) {
      const members = [...hosts.devices].filter((device) => device.group === group) as FakeDevice[];
      const states = members.map((device) => endpoints.seen(device.endpoint));
      const inDomain = members.filter((_, i) => states[i]?.domain !== undefined);
      const active = members.filter((_, i) => states[i]?.domain && !states[i]?.isBlocked);
      assert(active.length === 0 || active.length === inDomain.length, "together or not at all");
      for (const page of PAGES) {
        const walks = members.map(({ endpoint }) => this.#walk(endpoint, page));
        let expected = walks[members.indexOf(active[0])];
        if (active.length === 0) {
          expected = inDomain.length === 0 && walks.every((frame) => frame === page) ? page : -1;
          if (this.host.stuck.has(group)) expected = -1;
        }
        for (const device of members) {
          const place = this.host.groups.get(group);
          if (place === "vmm") assertEquals(inDomain.length, 0);
          assertEquals(device.reaches(page), expected, `endpoint ${device.endpoint}, page ${page}`);
        }
        for (const device of inDomain) {
          assertEquals(device.reaches(page), walks[members.indexOf(device)]);
        }
      }
    }
    for (const place of this.host.groups.values()) {
      assert(
        typeof place === "string" || this.host.tables.has(place),
        "a table that was destroyed",
      );
    }
  }

  end(): void {
    this.host.next = () => OK;
    this.guest.device.close();
    assertEquals([this.host.tables.size, this.host.ram.size], [0, 0]);
  }

  #add(id: number): void {
    const device = this.#devices.get(id) ?? this.host.device(id, id === C ? 2 : 1);
    if (this.guest.device.passthrough.add(device) === OK) this.#devices.set(id, device);
  }

  #has(frame: number): boolean {
    return this.#regions[frame === ONE ? 0 : 1] !== undefined;
  }

  #memory(slot: number): void {
    const { device } = this.guest;
    const region = this.#regions[slot];
    this.#regions[slot] = region === undefined ? ram(slot === 0 ? ONE : OTHER) : undefined;
    if (region === undefined) device.memoryAdded(this.#regions[slot]!);
    else device.memoryRemoved(region);
  }

  #begin(sign: "new" | "used" | "unused"): void {
    this.guest.device.queueBegins(0, sign);
    this.guest.device.queueStarted(0, QUEUE);
  }

  #walk(endpoint: number, page: number): number {
    const walk = this.guest.device.walk(endpoint, page, READ);
    return walk.ok && this.host.isRam(walk.frame) ? walk.frame : -1;
  }

  #checkBlocked(id: number): void {
    const device = this.#devices.get(id);
    if (device === undefined) return;
    for (const page of PAGES) assertEquals(device.reaches(page), -1, "between two sessions");
  }
}

Deno.test("in any history a device of the host reaches what a walk of its endpoint says, page by page", () => {
  fc.assert(
    fc.property(fc.boolean(), fc.array(step, { minLength: 1, maxLength: 24 }), (bypass, steps) => {
      const history = new History(bypass);
      history.check();
      for (const { action, fault } of steps) {
        let call = 0;
        history.host.next = () => fault?.calls.includes(call++) === true ? fault.error : OK;
        history.do(action);
        history.check();
      }
      history.end();
    }),
    { numRuns: isLong ? 3000 : 150 },
  );
});
