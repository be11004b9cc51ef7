/**
 * Random lives of a device are recorded, and replayed to the same device: same answers, same tables in the same places, same
 * state, whatever is done in pieces and wherever it is interrupted.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  probeRequest,
  unmapRequest,
} from "../../../device/iommu/driver_requests.ts";
import { Turn } from "../../../device/iommu/turn.ts";
import type { ResetKind, StartSign } from "../../../device/virtio_device.ts";
import { isLong } from "../../long_mode.ts";
import { plainRing } from "../plain_ring.ts";
import {
  assertSameDevice,
  RecordedGuest,
  replayAll,
  SMALL_OPTIONS,
  tablesOf,
} from "./recorded_guest.ts";

const REGION = { guestAddress: 0x10_0000, size: 0x40_0000, offset: 0 };

type Step =
  | {
    readonly do: "attach" | "detach";
    readonly domain: number;
    readonly endpoint: number;
    readonly flags: number;
  }
  | {
    readonly do: "map" | "unmap";
    readonly domain: number;
    readonly page: number;
    readonly pages: number;
    readonly frame: number;
    readonly flags: number;
  }
  | { readonly do: "many"; readonly domain: number; readonly count: number }
  | { readonly do: "probe"; readonly endpoint: number; readonly room: number }
  | { readonly do: "raw"; readonly bytes: Uint8Array; readonly room: number }
  | {
    readonly do: "access" | "refused";
    readonly endpoint: number;
    readonly page: number;
    readonly access: number;
  }
  | { readonly do: "idle"; readonly pieces: number }
  | { readonly do: "reset"; readonly kind: ResetKind }
  | { readonly do: "session"; readonly sign: StartSign }
  | { readonly do: "abandon"; readonly domain: number; readonly pieces: number }
  | { readonly do: "memory" }
  | { readonly do: "bypass"; readonly value: number }
  | { readonly do: "reload" };

const domain = fc.constantFrom(1, 1, 1, 2, 3, 0xffffffff);
const endpoint = fc.constantFrom(8, 8, 16, 24, 0x48, 0x50, 0x90);
const page = fc.oneof(fc.nat(0x400), fc.constantFrom(0x40000, 0xfee00, 2 ** 36 - 1));

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom("attach" as const, "attach" as const, "detach" as const),
      domain,
      endpoint,
      flags: fc.constantFrom(0, 0, 0, 1, 2),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constantFrom("map" as const, "map" as const, "unmap" as const),
      domain,
      page,
      pages: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constantFrom(512, 2 ** 14, 2 ** 24)),
      frame: fc.nat(0x1000),
      flags: fc.constantFrom(1, 2, 3, 3, 3, 7, 0, 8),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("many" as const),
      domain,
      count: fc.constantFrom(20, 520, 560),
    }),
  },
  fc.record({ do: fc.constant("probe" as const), endpoint, room: fc.constantFrom(28, 28, 4, 3) }),
  fc.record({
    do: fc.constant("raw" as const),
    bytes: fc.uint8Array({ minLength: 1, maxLength: 90 }),
    room: fc.constantFrom(4, 4, 0, 3, 900),
  }),
  fc.record({
    do: fc.constantFrom("access" as const, "refused" as const),
    endpoint,
    page,
    access: fc.constantFrom(1, 2),
  }),
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("idle" as const),
      pieces: fc.integer({ min: 1, max: 4 }),
    }),
  },
  fc.record({
    do: fc.constant("reset" as const),
    kind: fc.constantFrom<ResetKind>("device", "system", "doubtful"),
  }),
  fc.record({
    do: fc.constant("session" as const),
    sign: fc.constantFrom<StartSign>("new", "unused", "used"),
  }),
  fc.record({ do: fc.constant("abandon" as const), domain, pieces: fc.nat(3) }),
  fc.constant({ do: "memory" as const }),
  fc.record({ do: fc.constant("bypass" as const), value: fc.constantFrom(0, 1, 2) }),
  fc.constant({ do: "reload" as const }),
);

/** A life, step by step. */
class Life {
  readonly guest: RecordedGuest;
  #region: typeof REGION & { buffer: ArrayBuffer } | undefined;

  constructor(options = SMALL_OPTIONS) {
    this.guest = new RecordedGuest(options);
  }

  take(step: Step): void {
    const { guest } = this;
    const { device } = guest;
    switch (step.do) {
      case "attach":
        guest.request(attachRequest(step.domain, step.endpoint, step.flags), 4);
        break;
      case "detach":
        guest.request(detachRequest(step.domain, step.endpoint), 4);
        break;
      case "map":
      case "unmap":
        this.#range(step.do, step.domain, step.page, step.pages, step.frame, step.flags);
        break;
      case "many":
        for (let i = 0; i < step.count; i++) {
          this.#range("map", step.domain, 0x80_0000 + 2 * i, 1, i, 3);
        }
        break;
      case "probe":
        guest.request(probeRequest(step.endpoint), step.room);
        break;
      case "raw":
        guest.request(step.bytes, step.room);
        break;
      case "access":
        device.access(step.endpoint, step.page, step.access);
        break;
      case "refused":
        device.refused(step.endpoint, step.page, 0x123, step.access);
        break;
      case "idle": {
        // A turn that is over after one piece.
        const turn = new Turn();
        for (let i = 0; i < step.pieces; i++) {
          turn.begin(0, 0);
          if (device.hasWork) device.work(turn);
        }
        break;
      }
      case "reset":
        device.reset(step.kind);
        break;
      case "session":
        this.#endSession();
        device.queueBegins(0, step.sign);
        break;
      case "abandon":
        this.#abandon(step.domain, step.pieces);
        break;
      case "memory":
        this.#changeMemory();
        break;
      case "bypass":
        device.writeConfig(Uint8Array.of(step.value), 36);
        break;
      case "reload":
        device.loadState(device.saveState());
        break;
    }
  }

  /** Replays what was recorded so far, and compares. */
  compare(): void {
    const { device, recorder } = this.guest;
    recorder.end();
    const replay = replayAll(this.guest.takeBytes());
    assertEquals(replay.requests.difference, undefined);
    assertEquals([replay.end, replay.isCut], ["serve ended", false]);
    assertSameDevice(replay.device, device);
    assertEquals(replay.device.saveState(), device.saveState());
    replay.close();
  }

  end(): void {
    if (this.#region !== undefined) this.#changeMemory();
    this.guest.close();
  }

  #endSession(): void {
    const { device } = this.guest;
    device.sessionEnds();
    device.queueStopped(0);
    device.disconnected();
  }

  /** Unmaps everything of a domain, which may take pieces, and ends the session in the middle. */
  #abandon(domain: number, pieces: number): void {
    const { device } = this.guest;
    const { memory } = device;
    const { driver, queue } = plainRing(memory, 0x4000, 8);
    memory.resolve(0x20000, 28, true);
    memory.bytes.set(unmapRequest(domain, 0n, 2n ** 48n - 1n), memory.offset);
    driver.begin();
    driver.addReadable(0x20000, 28);
    driver.addWritable(0x21000, 4);
    driver.commit();
    driver.kick();
    device.service(0, queue, 1);
    const turn = new Turn();
    for (let i = 0; i < pieces && !device.holds && device.hasWork; i++) {
      turn.begin(0, 0);
      device.work(turn);
    }
    this.#endSession();
    device.queueBegins(0, "used");
  }

  #range(
    what: "map" | "unmap",
    domain: number,
    page: number,
    pages: number,
    frame: number,
    flags: number,
  ): void {
    const virtStart = BigInt(page) * 4096n;
    const virtEnd = virtStart + BigInt(pages) * 4096n - 1n;
    const physStart = BigInt(frame) * 4096n;
    this.guest.request(
      what === "map"
        ? mapRequest({ domain, virtStart, virtEnd, physStart, flags })
        : unmapRequest(domain, virtStart, virtEnd),
      4,
    );
  }

  #changeMemory(): void {
    if (this.#region === undefined) {
      this.#region = { ...REGION, buffer: new ArrayBuffer(REGION.size) };
      this.guest.addMemory(this.#region);
    } else {
      this.guest.removeMemory(this.#region);
      this.#region = undefined;
    }
  }
}

Deno.test("a replay of any life ends with the same device, and with the recorded answers on the way", () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 60 }), (steps) => {
      const life = new Life();
      life.take({ do: "attach", domain: 1, endpoint: 8, flags: 0 });
      for (const each of steps) life.take(each);
      life.compare();
      life.end();
    }),
    { numRuns: isLong ? 3000 : 200 },
  );
});

Deno.test("a request that the end of its session has cut off is replayed as far as it had come", () => {
  for (const pieces of [0, 1, 5]) {
    const life = new Life({ ...SMALL_OPTIONS, maxMappings: 8000 });
    life.take({ do: "attach", domain: 1, endpoint: 8, flags: 0 });
    life.take({ do: "many", domain: 1, count: 8000 });
    life.take({ do: "abandon", domain: 1, pieces });
    assert(life.guest.device.iommu.isEnding);
    life.compare();
    life.end();
  }
});

Deno.test("a replay uses groups of entries where the recorded device did", () => {
  const life = new Life();
  life.take({ do: "attach", domain: 1, endpoint: 0x48, flags: 0 });
  // An SMMUv3 table has 16 entries of 4 KiB as one group (Arm ARM D8.7.1, the Contiguous bit).
  life.take({ do: "map", domain: 1, page: 0x100, pages: 64, frame: 0x100, flags: 1 });
  const [, words] = tablesOf(life.guest.device);
  assert(words.some((word, i) => i % 2 === 1 && (word & (1 << 20)) !== 0), "the bit is set");
  life.compare();
  life.end();
});

Deno.test("answers to PROBE are as long as they were where devices of the host could have ranges of their own", () => {
  const life = new Life({ ...SMALL_OPTIONS, maxHostRanges: 8 });
  life.take({ do: "probe", endpoint: 8, room: 8 * 24 + 4 });
  life.compare();
  life.end();
});
