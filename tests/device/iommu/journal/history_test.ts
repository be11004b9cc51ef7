/**
 * Random histories of requests, resets, sessions, memory and snapshots, in which the device ends at random points: answers and
 * translations are those of a device that never ended, and those of one that only read the journal.
 */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  unmapRequest,
} from "../../../../device/iommu/driver_requests.ts";
import { IommuDevice } from "../../../../device/iommu/iommu_device.ts";
import { Journal } from "../../../../device/iommu/journal/journal.ts";
import { Requests } from "../../../../device/iommu/requests.ts";
import { VirtioIommu } from "../../../../device/iommu/virtio_iommu.ts";
import { Chain } from "../../../../vring/chain.ts";
import { PositionRecord } from "../../../../vring/mod.ts";
import { RingWords16, RingWords32 } from "../../../../vring/ring_words.ts";
import { GuestLives } from "../../../../device/iommu/guest_lives.ts";
import { CrashPoints } from "../../../crash_points.ts";
import { isLong } from "../../../long_mode.ts";
import { JournalledGuest, OPTIONS, RING_KINDS, SPARE_PAGE, stateOf } from "./journalled_guest.ts";

const PAGES = [...Array(12).keys(), 40, 41];

/** One thing that happens, during which the device may end at a point, and again at another. */
interface Step {
  readonly what: What;
  readonly ends: readonly number[];
}

type What =
  | { readonly kind: "requests"; readonly requests: readonly Uint8Array[] }
  | { readonly kind: "reset"; readonly reset: "device" | "system" | "doubtful" }
  | { readonly kind: "reconnect"; readonly sign: "new" | "unused" | "used" }
  | { readonly kind: "memory" | "pause" | "snapshot" }
  | { readonly kind: "bypass" | "reboot"; readonly on: boolean };

const endpoint = fc.constantFrom(1, 2, 3, 17, 99);
const domain = fc.nat(4);
const page = fc.constantFrom(0, 1, 2, 3, 4, 6, 8, 10, 40);
const frame = fc.constantFrom(0, 1, 3, SPARE_PAGE, SPARE_PAGE + 1, SPARE_PAGE + 14);

const request: fc.Arbitrary<Uint8Array> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.tuple(domain, endpoint, fc.constantFrom(0, 0, 0, 1)).map((a) =>
      attachRequest(...a)
    ),
  },
  { weight: 1, arbitrary: fc.tuple(domain, endpoint).map((a) => detachRequest(...a)) },
  {
    weight: 6,
    arbitrary: fc.record({
      domain,
      page,
      count: fc.constantFrom(1, 1, 1, 2, 4),
      frame,
      flags: fc.constantFrom(1, 2, 3, 7),
    })
      .map(({ domain, page, count, frame, flags }) =>
        mapRequest({
          domain,
          virtStart: BigInt(page) * 4096n,
          virtEnd: BigInt(page + count) * 4096n - 1n,
          physStart: BigInt(frame) * 4096n,
          flags,
        })
      ),
  },
  {
    weight: 4,
    arbitrary: fc.tuple(domain, page, fc.constantFrom(1, 2, 4, 64)).map(([domain, page, count]) =>
      unmapRequest(domain, BigInt(page) * 4096n, BigInt(page + count) * 4096n - 1n)
    ),
  },
);

const what: fc.Arbitrary<What> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant("requests" as const),
      requests: fc.array(request, { minLength: 1, maxLength: 7 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("reset" as const),
      reset: fc.constantFrom("device" as const, "system" as const, "doubtful" as const),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("reconnect" as const),
      sign: fc.constantFrom("new" as const, "unused" as const, "used" as const),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        "memory" as const,
        "memory" as const,
        "pause" as const,
        "snapshot" as const,
      ),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constantFrom("bypass" as const, "reboot" as const),
      on: fc.boolean(),
    }),
  },
);

const step: fc.Arbitrary<Step> = fc.record({
  what,
  ends: fc.oneof(
    fc.constant([]),
    fc.array(fc.oneof(fc.nat(30), fc.nat(200)), { minLength: 1, maxLength: 3 }),
  ),
});

/** What has to be done one after another; each is done again if the device ends in it. */
function actionsOf(guest: JournalledGuest, what: What): readonly (() => void)[] {
  switch (what.kind) {
    case "requests":
      return [() => guest.serve()];
    case "reset":
      return guest.resetMessages(what.reset);
    case "reconnect":
      return guest.reconnectMessages(what.sign);
    case "memory":
      return [() => guest.changeMemory()];
    case "pause":
      return guest.pauseMessages();
    case "snapshot":
      return [() => guest.compact()];
    case "bypass":
      return [() => guest.writeBypass(what.on)];
    case "reboot":
      return guest.rebootMessages(what.on);
  }
}

/** Does all steps; without `crash` the device does not end. */
function live(guest: JournalledGuest, steps: readonly Step[], crash?: CrashPoints): void {
  for (const { what, ends } of steps) {
    if (what.kind === "requests") guest.send(...what.requests);
    const left = [...ends];
    for (const action of actionsOf(guest, what)) {
      let isDone = false;
      let mustStart = false;
      while (!isDone) {
        crash?.arm(left.shift());
        const turn = (): void => {
          if (mustStart) guest.start();
          action();
        };
        isDone = crash === undefined ? (turn(), true) : !crash.ends(turn);
        mustStart = true;
        // Ends that are staged look like a request that ends its device. That is another test.
        guest.recordWords[8] = 0;
      }
    }
    guest.reap();
  }
}

function points(): CrashPoints {
  return new CrashPoints(
    [Journal.prototype, "appendFields", "forgetBefore"],
    [PositionRecord.prototype, "attempt", "attempted", "intend", "shown", "goOn", "begin"],
    [RingWords16.prototype, "storeOrdered"],
    [RingWords32.prototype, "store", "storeOrdered"],
    [Requests.prototype, "serve", "answerAgain"],
    [VirtioIommu.prototype, "map", "unmap", "attach", "detach"],
    [GuestLives.prototype, "reset", "end", "queueBegins"],
    [Chain.prototype, "scatter"],
  );
}

Deno.test("a device that ends at any point of any history goes on as if it had not", () => {
  const histories = fc.tuple(
    fc.constantFrom(...RING_KINDS),
    fc.array(step, { minLength: 3, maxLength: 25 }),
  );
  fc.assert(
    fc.property(histories, ([kind, steps]) => {
      using unbroken = new JournalledGuest(kind);
      live(unbroken, steps.filter(({ what }) => what.kind !== "snapshot"));
      using crash = points();
      using broken = new JournalledGuest(kind);
      live(broken, steps, crash);
      assertEquals(broken.answers, unbroken.answers);
      const expected = stateOf(unbroken.device, PAGES);
      assertEquals(stateOf(broken.device, PAGES), expected);
      assertEquals(broken.checksum, unbroken.checksum);
      const follower = new IommuDevice(OPTIONS);
      const journal = Journal.open(broken.journalBuffer);
      assertEquals(follower.journal.replay(journal, broken.snapshot), undefined);
      assertEquals(stateOf(follower, PAGES), expected);
    }),
    { numRuns: isLong ? 5000 : 250 },
  );
});
