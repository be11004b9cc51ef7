/**
 * Hostile requests: every field at its edges, cut into pieces of any shape, between resets, bypass writes and
 * memory that comes and goes. Every answer is what a plain model of the specification says, and afterwards
 * everything is given back.
 *
 * Ten thousand inputs, or a million in the long mode, `VIOMMU_TEST=full`. A failure names the history that
 * failed: `VIOMMU_SEED=… VIOMMU_HISTORY=… deno test -A tests/device/iommu/hostile_requests_test.ts` replays it.
 */
import { Random, seed } from "../../guest/random.ts";
import { isLong } from "../../long_mode.ts";
import { History } from "./hostile_history.ts";

const INPUTS = isLong ? 1_000_000 : 10_000;
const HISTORY = 200;

Deno.test(`hostile requests, ${INPUTS} of them, are answered as the specification says`, () => {
  const chosen = Deno.env.get("VIOMMU_HISTORY");
  const first = Number(chosen ?? 0);
  const last = chosen === undefined ? INPUTS / HISTORY - 1 : first;
  for (let history = first; history <= last; history++) {
    try {
      new History(new Random(seed() + history * 0x9e3779b1)).run(HISTORY);
    } catch (error) {
      const replay = `VIOMMU_SEED=${seed()} VIOMMU_HISTORY=${history}`;
      throw new Error(`${replay} deno test -A tests/device/iommu/hostile_requests_test.ts`, {
        cause: error,
      });
    }
  }
  console.log(`${(last - first + 1) * HISTORY} inputs, seed ${seed()}`);
});
