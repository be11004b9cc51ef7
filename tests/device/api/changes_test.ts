/** What a client of the API sees while the guest changes what it asks for (docs/api.md). */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import type { ApiContext, MappingState } from "../../../device/api/mod.ts";
import { mappings } from "../../../device/api/mappings.ts";
import { Work, WORK_MAX } from "../../../device/api/work.ts";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  unmapRequest,
} from "../../../device/iommu/driver_requests.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "../in_process_guest.ts";
import { runs } from "../../vring/ring_fixture.ts";
import { stateOf } from "./api_world.ts";

const DOMAINS = 4;
/** Places of 16 pages each in a domain: enough mappings for several pieces. */
const PLACES = 400;

/** What is done to a place between two pieces. */
interface Change {
  readonly domain: number;
  readonly place: number;
  readonly pages: number;
  readonly restart: boolean;
}

const changes = fc.array(
  fc.record({
    domain: fc.integer({ min: 1, max: DOMAINS }),
    place: fc.nat(PLACES - 1),
    pages: fc.nat(16),
    restart: fc.integer({ min: 0, max: 30 }).map((roll) => roll === 0),
  }),
  { maxLength: 60 },
);

/** A guest, and what is mapped in it by domain and first page. */
class ChangingGuest implements Disposable {
  readonly guest = new InProcessGuest({ ...DEFAULT_OPTIONS, reserved: [], bypass: false });
  readonly context: ApiContext = { device: this.guest.device, version: "0", connected: true };
  /** Keys of what is mapped now. */
  readonly now = new Set<string>();
  /** Keys of what was mapped at any time. */
  readonly ever = new Set<string>();
  /** Keys of what was mapped all the time since {@linkcode watch}. */
  always = new Set<string>();

  constructor() {
    for (let domain = 1; domain <= DOMAINS; domain++) {
      this.guest.request(attachRequest(domain, domain), 4);
      for (let place = 0; place < PLACES; place += 2) this.#map(domain, place, 1 + place % 16);
    }
  }

  watch(): void {
    this.always = new Set(this.now);
  }

  /** Ends the domain and begins it anew, or unmaps a place and maps as many pages of it. */
  apply({ domain, place, pages, restart }: Change): void {
    if (restart) {
      this.guest.request(detachRequest(domain, domain), 4);
      this.guest.request(attachRequest(domain, domain), 4);
      this.#forget(({ domain: id }) => id === domain);
      return;
    }
    const first = BigInt(place) * 0x10000n;
    this.guest.request(unmapRequest(domain, first, first + 0xffffn), 4);
    this.#forget(({ domain: id, at }) => id === domain && at === place);
    if (pages > 0) this.#map(domain, place, pages);
  }

  #map(domain: number, place: number, pages: number): void {
    const virtStart = BigInt(place) * 0x10000n;
    const virtEnd = virtStart + BigInt(pages) * 0x1000n - 1n;
    this.guest.request(
      mapRequest({ domain, virtStart, virtEnd, physStart: virtStart, flags: 3 }),
      4,
    );
    const key = keyOf(domain, `0x${virtStart.toString(16)}`, `0x${virtEnd.toString(16)}`);
    this.now.add(key);
    this.ever.add(key);
  }

  #forget(isGone: (what: { domain: number; at: number }) => boolean): void {
    for (const key of this.now) {
      const [domain, first] = key.split(" ");
      if (!isGone({ domain: Number(domain), at: Number(BigInt(first) / 0x10000n) })) continue;
      this.now.delete(key);
      this.always.delete(key);
    }
  }

  [Symbol.dispose](): void {
    this.guest.close();
  }
}

function keyOf(domain: number, iova: string, last: string): string {
  return `${domain} ${iova} ${last}`;
}

Deno.test("what is mapped all the time is listed once, what is not perhaps, and nothing overlaps", () => {
  fc.assert(
    fc.property(fc.array(changes, { maxLength: 12 }), (rounds) => {
      using guest = new ChangingGuest();
      guest.watch();
      const work = new Work();
      let text = "";
      let round = 0;
      for (const piece of mappings(guest.context, new URLSearchParams(), work)) {
        text += piece;
        work.begin();
        for (const change of rounds[round++] ?? []) guest.apply(change);
      }
      assert(work.longest <= WORK_MAX + 8);
      const listed = JSON.parse(text) as readonly MappingState[];
      let before: MappingState | undefined;
      const seen = new Set<string>();
      for (const mapping of listed) {
        const { domain, iova, last } = mapping;
        if (before !== undefined) {
          const isBehind = domain > before.domain ||
            (domain === before.domain && BigInt(iova) > BigInt(before.last));
          assert(isBehind, `${JSON.stringify(before)} before ${JSON.stringify(mapping)}`);
        }
        before = mapping;
        const key = keyOf(domain, iova, last);
        assert(guest.ever.has(key), `${key} was never mapped`);
        seen.add(key);
      }
      assertEquals(seen.size, listed.length);
      for (const key of guest.always) assert(seen.has(key), `${key} is missing`);
    }),
    { numRuns: runs(20) },
  );
});

Deno.test("a guest that makes domain after domain does not make an answer endless", () => {
  const guest = new InProcessGuest({ ...DEFAULT_OPTIONS, reserved: [], bypass: false });
  for (let id = 0; id < 1000; id++) guest.request(attachRequest(id, id), 4);
  const context = { device: guest.device, version: "0", connected: true };
  const work = new Work();
  let next = 1000;
  const begin = work.begin.bind(work);
  work.begin = () => {
    begin();
    // Every piece of work is followed by more new domains than it has dealt with.
    for (let i = 0; i < 300 && next < 60_000; i++, next++) {
      guest.request(attachRequest(next, next), 4);
    }
  };
  const { domains } = stateOf(context, work);
  assertEquals(domains.length, 1000);
  guest.close();
});
