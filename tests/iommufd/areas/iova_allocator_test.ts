import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  createPageList,
  ENOSPC,
  GuestSource,
  IoAddressSpace,
  OK,
  READ,
} from "../../../iommufd/mod.ts";
import { isLong } from "../../long_mode.ts";

Deno.test("automatic addresses: there is one exactly when a page-by-page search finds one", () => {
  const guest = new GuestSource({ lastIndex: 8191 });
  const list = createPageList(guest);
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat({ max: 250 }), fc.nat({ max: 12 }), fc.boolean()), {
        maxLength: 60,
        size: "max",
      }),
      fc.array(fc.tuple(fc.nat({ max: 250 }), fc.nat({ max: 20 })), { maxLength: 3 }),
      fc.integer({ min: 1, max: 40 }),
      fc.constantFrom(0, 1, 2, 4, 8, 24, 512),
      (maps, reservations, count, index) => {
        const space = new IoAddressSpace({ lastPage: 255 });
        const taken = new Set<number>([0]);
        for (const [first, length, isKept] of maps) {
          const last = Math.min(first + length, 255);
          if (space.map(first, last, list, 0, READ) !== OK) continue;
          if (isKept) { for (let page = first; page <= last; page++) taken.add(page); }
          else space.unmap(first, last);
        }
        for (const [first, length] of reservations) {
          if (space.reserve(first, first + length, {}) !== OK) continue;
          for (let page = first; page <= first + length; page++) taken.add(page);
        }
        let align = 1;
        while (align < 512 && align < count && index % (align * 2) === 0) align *= 2;
        const fits = (page: number): boolean => {
          for (let at = page; at < page + count; at++) if (at > 255 || taken.has(at)) return false;
          return true;
        };
        let isPossible = false;
        for (let page = 0; page < 256; page += align) isPossible ||= fits(page);
        // Twice: the second answer to a refused size comes from memory.
        for (let round = 0; round < 2; round++) {
          const errno = space.mapAuto(count, list, index, READ);
          assertEquals(errno, isPossible ? OK : ENOSPC);
          if (errno !== OK) continue;
          assert(fits(space.mappedPage) && space.mappedPage % align === 0);
          space.unmap(space.mappedPage, space.mappedPage + count - 1);
        }
      },
    ),
    { numRuns: isLong ? 2000 : 600 },
  );
});

Deno.test("automatic addresses: a badly aligned hole between every two mappings costs bounded tries", () => {
  const guest = new GuestSource({ lastIndex: 8191 });
  const list = createPageList(guest);
  const space = new IoAddressSpace();
  // Holes of 8 pages at 5 mod 16: no place for 8 aligned pages, 30 000 times.
  for (let at = 0; at < 30_000; at++) space.map(at * 16 + 13, at * 16 + 20, list, 0, READ);
  let visits = 0;
  const tree = space.areaSet.tree;
  const gapAfter = tree.gapAfter.bind(tree);
  tree.gapAfter = (page, count) => {
    visits++;
    return gapAfter(page, count);
  };
  assertEquals(space.mapAuto(8, list, 0, READ), OK);
  assertEquals(space.mappedPage % 8, 0);
  assert(visits <= 64, `${visits} gaps were looked at`);
});
