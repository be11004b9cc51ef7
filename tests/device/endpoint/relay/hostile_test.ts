/**
 * Hostile back ends, thousands of them, while a guest has requests on its way: each harms its own session and nothing
 * else, and none of them ever sees memory of the guest that was not in its buffers.
 *
 * `VIOMMU_FUZZ_SESSIONS` and `VIOMMU_FUZZ_SEED` choose how many and which. Two threads share them, each with a relay.
 */
import { assert } from "@std/assert";
import { isLong, setting } from "../../../long_mode.ts";
import { type HostileOrder, type HostileOutcome, KINDS } from "./hostile_sessions.ts";
import type { HostileAnswer } from "./hostile_sessions_worker.ts";

const SESSIONS = Number(setting("VIOMMU_FUZZ_SESSIONS") ?? (isLong ? 10_000 : 2500));
const SEED = Number(setting("VIOMMU_FUZZ_SEED") ?? 20_261_130);
const THREADS = 2;

/** Runs an order on a thread of its own. */
async function onThread(order: HostileOrder): Promise<HostileOutcome> {
  const worker = new Worker(new URL("hostile_sessions_worker.ts", import.meta.url), {
    type: "module",
  });
  try {
    const answer = await new Promise<HostileAnswer>((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = (event) => {
        event.preventDefault();
        reject(new Error(event.message));
      };
      worker.postMessage(order);
    });
    if ("failure" in answer) throw new Error(`Seed ${order.seed}: ${answer.failure}`);
    return answer.outcome;
  } finally {
    worker.terminate();
  }
}

Deno.test(`${SESSIONS} hostile back ends end their own sessions, and nothing else`, async () => {
  const outcomes = await Promise.all(
    Array.from(
      { length: THREADS },
      (_, thread) => onThread({ seed: SEED + thread, sessions: Math.ceil(SESSIONS / THREADS) }),
    ),
  );
  const sum = (count: (outcome: HostileOutcome) => number) =>
    outcomes.reduce((total, each) => total + count(each), 0);
  const sessions = sum((each) => each.sessions);
  const identified = sum((each) => each.identified);
  const violations = sum((each) => each.violations);
  const [answered, submitted] = [sum((each) => each.answered), sum((each) => each.submitted)];
  console.error(
    `relay: seed ${SEED}, ${sessions} sessions, ${identified} said what they are, ` +
      `${violations} cut off, ${answered} of ${submitted} requests answered`,
  );
  assert(violations > SESSIONS / 20, `${violations} were cut off`);
  assert(answered > SESSIONS / 10 && submitted >= answered, `${answered} of ${submitted}`);
  for (const kind of KINDS) {
    assert(outcomes.some((each) => each.kinds.includes(kind)), `a back end broke a rule: ${kind}`);
  }
});
