import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { FREE_GROWTH } from "../../iommufd/growth.ts";
import { Holdings } from "../../iommufd/holdings.ts";
import {
  DEVICE_RUN,
  type GuestRegion,
  GuestSource,
  PinBudget,
  RAM_RUN,
} from "../../iommufd/mod.ts";
import { isLong } from "../long_mode.ts";

const PAGES = 48;

/** What an index is: its frame, and the region it is of or null for device memory. */
interface Page {
  readonly frame: number;
  readonly region: GuestRegion | null;
}

Deno.test("holdings: pages stay what they were while held, counted and charged one by one, whatever comes and goes", () => {
  const step = fc.tuple(fc.nat({ max: 5 }), fc.nat({ max: PAGES - 1 }), fc.nat({ max: 20 }));
  const history = fc.array(step, { maxLength: 60, size: "max" });
  fc.assert(
    fc.property(history, fc.integer({ min: 20, max: PAGES }), (steps, limit) => {
      const source = new GuestSource({ lastIndex: PAGES - 1 });
      const budget = new PinBudget(limit);
      const held = new Holdings(source, FREE_GROWTH, budget);
      source.connect({
        isBusy: false,
        regionAdded: (region) => held.regionAdded(region),
        regionRemoved: (region) => held.regionRemoved(region),
      });
      const live: Page[] = Array.from({ length: PAGES }, (_, at) => ({ frame: at, region: null }));
      const was: (Page | undefined)[] = new Array(PAGES).fill(undefined);
      const counts = new Array<number>(PAGES).fill(0);
      const holds: [number, number][] = [];
      let frame = 1000;
      const letGo = (first: number, last: number): void => {
        for (let at = first; at <= last; at++) if (--counts[at] === 0) was[at] = undefined;
        held.letGo(first, last);
      };
      for (const [what, first, length] of steps) {
        const last = Math.min(first + length, PAGES - 1);
        if (what <= 1) {
          let pages = budget.chargedPages;
          for (let at = first; at <= last; at++) {
            if (counts[at] === 0 && live[at].region !== null) pages++;
          }
          assertEquals(held.hold(first, last), pages <= limit);
          if (pages > limit) continue;
          holds.push([first, last]);
          for (let at = first; at <= last; at++) if (counts[at]++ === 0) was[at] = live[at];
        } else if (what === 2 && holds.length > 0) {
          letGo(...holds.splice(first % holds.length, 1)[0]);
        } else if (what === 3 && source.regions.length > 0) {
          const region = source.regions[first % source.regions.length];
          const isHeld = was.some((page) => page?.region === region);
          assertEquals(source.removeRegion(region), !isHeld);
          for (let at = region.firstIndex; at <= region.lastIndex; at++) {
            live[at] = { frame: at, region: null };
          }
        } else if (what >= 4 && live.slice(first, last + 1).every((page) => page.region === null)) {
          const region = source.addRegion(first, last, { firstFrame: frame + first });
          for (let at = first; at <= last; at++) live[at] = { frame: frame + at, region };
          frame += 1000;
        }
        for (let at = 0; at < PAGES; at++) {
          const page = was[at] ?? live[at];
          held.find(at, at);
          assertEquals([held.runFrame, held.runKind], [
            page.frame,
            page.region === null ? DEVICE_RUN : RAM_RUN,
          ]);
          if (page.region === null) continue;
          assertEquals(held.isUnheld(at, PAGES - 1), counts[at] === 0);
        }
        const pinned = was.filter((page) => page !== undefined && page.region !== null).length;
        assertEquals([held.pinned, budget.chargedPages], [pinned, pinned]);
        const outlived: string[] = [];
        for (const { region, first, last } of held.outlivedRuns(source.regions)) {
          for (let at = first; at <= last; at++) outlived.push(`${at} ${region?.firstIndex}`);
        }
        const changed = was.flatMap((page, at) =>
          page === undefined || page.region === live[at].region
            ? []
            : [`${at} ${page.region?.firstIndex}`]
        );
        assertEquals(outlived.sort(), changed.sort());
        for (const region of source.retired) {
          assertEquals(was.some((page) => page?.region === region), true, "retired but not held");
        }
      }
      for (const [first, last] of holds) letGo(first, last);
      assertEquals([held.isEmpty, source.retired.length], [true, 0]);
    }),
    { numRuns: isLong ? 800 : 200 },
  );
});
