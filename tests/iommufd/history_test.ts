/**
 * Random histories against the model, with one failure injected somewhere, everything compared after every step.
 *
 * 3000 histories in a normal run, 120 000 in the long mode (VIOMMU_TEST=full); VIOMMU_HISTORIES=n for another number,
 * VIOMMU_SEED=n for another seed than the time.
 */
import { assert } from "@std/assert";
import fc from "fast-check";
import { READ, WRITE } from "../../iommufd/mod.ts";
import { isLong } from "../long_mode.ts";
import { World } from "./world.ts";

const standard = isLong ? "120000" : "3000";
const histories = Number(Deno.env.get("VIOMMU_HISTORIES") ?? standard);
const seed = Number(Deno.env.get("VIOMMU_SEED") ?? Date.now() % 2 ** 31);

type Step = readonly [number, number, number, number, number, number, number];

const PROTECTIONS = [READ | WRITE, READ, READ | WRITE, WRITE, READ | WRITE, 0];

/** Does one step. Which one and on what, six small numbers say. */
function doStep(world: World, [what, a, b, c, d, e]: Step): void {
  const space = a % 2;
  const first = b % 40;
  const count = c % 12 + 1;
  const list = d % 4;
  const index = e % 22;
  const protection = PROTECTIONS[(a + e) % PROTECTIONS.length];
  switch (what) {
    case 0:
    case 1:
    case 2:
    case 3:
      return world.map(space, first, count, list, index, protection);
    case 4:
    case 5:
      return world.unmap(space, d % 4 === 0 ? 0 : first, d % 4 === 0 ? 60 : count + e % 10);
    case 6:
    case 7:
      return world.addTable(space, e % 3 === 0);
    case 8:
      return world.removeTable(space, d);
    case 9:
    case 10:
    case 11:
      return world.users.pin(d % 2, first, count % 7 + 1, e % 3 === 0);
    case 12:
      return world.users.unpin(d % 2, e);
    case 13:
    case 14:
      return world.copy(space, first, count, d % 2, e + 40 * (c % 2), protection);
    case 15:
      return e % 5 === 0 ? world.users.moveAccess(d % 2) : world.mapAuto(space, count, list, index);
    case 16:
    case 17:
      return world.regions.swap(a % 2 === 0, b, e % 24, count);
    case 18:
      return d % 3 === 0 ? world.dirty.readDirty(space, e) : world.track(space, e % 4 !== 0);
    case 19:
      return d % 3 === 0 ? world.dirty.readDirty(space, e) : world.dirty.write(space, e, first);
  }
}

const step: fc.Arbitrary<Step> = fc.tuple(
  fc.nat({ max: 19 }),
  fc.nat({ max: 50 }),
  fc.nat({ max: 50 }),
  fc.nat({ max: 50 }),
  fc.nat({ max: 50 }),
  fc.nat({ max: 50 }),
  fc.constantFrom(0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 8, 11),
);

Deno.test(`${histories} random histories with injected failures agree with the model (seed ${seed})`, () => {
  let steps = 0;
  let faults = 0;
  let reentries = 0;
  fc.assert(
    fc.property(
      fc.array(step, { minLength: 2, maxLength: 26, size: "max" }),
      fc.record({
        slots: fc.constantFrom(1, 2, 3, 5, 64),
        chunkPages: fc.constantFrom(1, 2, 3, 7, 64),
        budgetPages: fc.constantFrom(undefined, 12, 40, 1000),
        isDeaf: fc.tuple(fc.boolean(), fc.constant(false)),
      }),
      fc.boolean(),
      (history, options, isStarted) => {
        const world = new World(options);
        try {
          // Half of the histories begin with something to work on.
          if (isStarted) world.addTable(0, options.slots === 3);
          for (const step of history) {
            // The seventh number says which thing that can fail does, if any.
            world.plan.arm(step[6]);
            doStep(world, step);
            if (world.plan.hasFired) faults++;
            world.plan.arm();
            world.check();
            steps++;
          }
          world.close();
        } finally {
          world.discard();
        }
        reentries += world.intruder.tries;
      },
    ),
    { numRuns: histories, seed, verbose: 1 },
  );
  assert(faults > histories / 2, `only ${faults} failures were met in ${steps} steps`);
  assert(reentries > histories, `only ${reentries} tries to get in from within`);
});
