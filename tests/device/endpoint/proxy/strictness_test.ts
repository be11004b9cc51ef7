/**
 * Whatever the guest does, and however slowly the back end follows: once a request is answered, the back end has no
 * translation that the guest did not make or has taken away; and it is never short of one that there is.
 */
import { assertEquals } from "@std/assert";
import { delay } from "@std/async";
import fc from "fast-check";
import { detachRequest } from "../../../../device/iommu/driver_requests.ts";
import { isLong } from "../../../long_mode.ts";
import { attach, ENDPOINT, map, MEMORY, ProxyWorld, unmap, USER } from "./proxy_world.ts";
import type { ScriptedBackEnd } from "./scripted_back_end.ts";

/** Pages that are mapped, and frames that there are and a few more. */
const PAGES = 8;
const FRAMES = MEMORY / 4096;
const BASE = 0x100;
const READ = 1;
const WRITE = 2;
const OK = 0;
const BYPASS_DOMAIN = 3;

type Operation =
  | {
    readonly kind: "map";
    readonly page: number;
    readonly frame: number;
    readonly pages: number;
    readonly flags: number;
    readonly domain: number;
  }
  | {
    readonly kind: "unmap";
    readonly page: number;
    readonly pages: number;
    readonly domain: number;
  }
  | { readonly kind: "attach"; readonly domain: number }
  | { readonly kind: "detach" };

/** One step: a batch of requests, misses while they are served, and when acknowledgements come. */
interface Step {
  readonly operations: readonly Operation[];
  readonly misses: readonly (readonly [page: number, permission: number])[];
  readonly isSlow: boolean;
}

const page = fc.integer({ min: BASE, max: BASE + PAGES - 1 });
const pages = fc.integer({ min: 1, max: 3 });
const domain = fc.constantFrom(1, 1, 1, 2);
const operation: fc.Arbitrary<Operation> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant("map" as const),
      page,
      pages,
      domain,
      // Mostly such that neighbours in one space are neighbours in the other; now and then beyond memory.
      shift: fc.constantFrom(BASE, BASE, BASE, BASE - 50, BASE - FRAMES + 5),
      flags: fc.constantFrom(1, 2, 3, 3, 3),
    }).map(({ shift, ...rest }) => ({ ...rest, frame: rest.page - shift })),
  },
  {
    weight: 5,
    arbitrary: fc.record({ kind: fc.constant("unmap" as const), page, pages, domain }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("attach" as const),
      domain: fc.constantFrom(1, 1, 2, BYPASS_DOMAIN),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: "detach" as const }) },
);
const step: fc.Arbitrary<Step> = fc.record({
  operations: fc.array(operation, { minLength: 1, maxLength: 5 }),
  misses: fc.array(fc.tuple(page, fc.integer({ min: 1, max: 3 })), { maxLength: 3 }),
  isSlow: fc.boolean(),
});

/** What the guest has mapped, page by page. */
class Model {
  /** Where the endpoint is attached; 0 for nowhere. */
  domain = 0;
  readonly #maps = [0, 1, 2].map(() => new Map<number, readonly [frame: number, flags: number]>());

  /** Applies a request that succeeded. */
  apply(operation: Operation): void {
    switch (operation.kind) {
      case "attach":
        this.domain = operation.domain;
        return;
      case "detach":
        this.domain = 0;
        return;
      case "map":
        for (let i = 0; i < operation.pages; i++) {
          const to = [operation.frame + i, operation.flags] as const;
          this.#maps[operation.domain].set(operation.page + i, to);
        }
        return;
      case "unmap":
        for (let i = 0; i < operation.pages; i++) {
          this.#maps[operation.domain].delete(operation.page + i);
        }
    }
  }

  /** Where a page of the endpoint leads to, in memory that there is. */
  translate(page: number): readonly [frame: number, permission: number] | undefined {
    if (this.domain === BYPASS_DOMAIN) return page < FRAMES ? [page, READ | WRITE] : undefined;
    const [frame, flags] = this.#maps[this.domain]?.get(page) ?? [FRAMES, 0];
    return frame < FRAMES ? [frame, flags === WRITE ? READ | WRITE : flags] : undefined;
  }
}

function requestOf(operation: Operation): Uint8Array {
  switch (operation.kind) {
    case "map": {
      const { page, frame, pages, flags, domain } = operation;
      return map(page, frame, pages, flags, domain);
    }
    case "unmap":
      return unmap(operation.page, operation.pages, operation.domain);
    case "attach":
      return attach(operation.domain, ENDPOINT, operation.domain === BYPASS_DOMAIN ? 1 : 0);
    case "detach":
      return detachRequest(1, ENDPOINT);
  }
}

/** Nothing in the back end's IOTLB is more than the guest allows, or leads elsewhere. */
function checkNothingStale(backEnd: ScriptedBackEnd, model: Model): void {
  for (const { iova, size, user, permission } of backEnd.entries) {
    for (let at = 0; at < size; at += 4096) {
      const found = model.translate((iova + at) / 4096);
      const place = `page ${(iova + at) / 4096} of ${iova / 4096}+${size / 4096}`;
      assertEquals(found?.[0], (Number(user) + at - USER) / 4096, place);
      assertEquals(permission & ~found![1], 0, place);
    }
  }
}

/** Everything that the guest allows is there, without having been asked for. */
function checkNothingMissing(backEnd: ScriptedBackEnd, model: Model): void {
  for (let page = BASE; page < BASE + PAGES + 3; page++) {
    const found = model.translate(page);
    if (found === undefined) continue;
    for (const permission of [READ, WRITE]) {
      if ((found[1] & permission) === 0) continue;
      assertEquals(backEnd.translate(page * 4096, permission), USER + found[0] * 4096, `${page}`);
    }
  }
}

async function run(steps: readonly Step[]): Promise<void> {
  await using world = await ProxyWorld.start();
  const [, backEnd] = await world.session();
  const model = new Model();
  // Others keep the domains alive while the endpoint comes and goes.
  await world.request(attach(1, 91), attach(2, 92), attach(BYPASS_DOMAIN, 93, 1), attach());
  model.apply({ kind: "attach", domain: 1 });
  for (const { operations, misses, isSlow } of steps) {
    backEnd.manner = isSlow ? "when told" : "at once";
    const statuses = await world.batch(operations.map(requestOf), async () => {
      for (const [page, permission] of misses) backEnd.miss(page * 4096, permission);
      while (isSlow && world.device.iotlbListeners.waiting > 0 || backEnd.owed > 0) {
        await delay(1);
        backEnd.acknowledge(1);
      }
      // What arrives from here on is acknowledged at once.
      backEnd.manner = "at once";
      backEnd.acknowledge();
    });
    statuses.forEach((status, i) => {
      if (status === OK) model.apply(operations[i]);
    });
    checkNothingStale(backEnd, model);
    await delay(3);
    checkNothingStale(backEnd, model);
    checkNothingMissing(backEnd, model);
  }
  assertEquals(world.counters.acknowledged, world.counters.invalidations);
  assertEquals([world.counters.refused, world.counters.timeouts], [0, 0]);
}

Deno.test("a back end never has a translation that is not the guest's, and never lacks one that is", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), run),
    { numRuns: isLong ? 300 : 20 },
  );
});
