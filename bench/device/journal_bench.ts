/**
 * What it costs that requests survive the end of the process: MAP and UNMAP pairs with nothing kept, with the record of the
 * queue's position, and with the journal, the snapshots that compact it included.
 *
 * The variants take turns in one process, so that their ratios hold on a machine that is not idle. Run as a program it prints
 * the device's part alone, as medians of the ratios in rounds.
 */
import { BATCH, type Kept, PairBench } from "./ring_driver.ts";

const KINDS: readonly Kept[] = ["nothing", "position", "journal"];
const LIVE = 2 ** 10;

for (const isPacked of [false, true]) {
  for (const kept of KINDS) {
    let bench: PairBench | undefined;
    Deno.bench({
      name: `${isPacked ? "packed, in order" : "split"}: ${BATCH} MAP and UNMAP, ${kept} kept`,
      group: isPacked ? "packed, what is kept" : "split, what is kept",
      baseline: kept === "nothing",
      fn(b) {
        bench ??= new PairBench(LIVE, { kept, isPacked });
        b.start();
        bench.run();
        b.end();
      },
    });
  }
}

/** Nanoseconds that the device takes for a pair in one round of a variant. */
function round(bench: PairBench, isOneByOne: boolean): number {
  bench.driver.deviceMs = 0;
  for (let i = 0; i < 8; i++) {
    if (isOneByOne) bench.runOneByOne();
    else bench.run();
  }
  return bench.driver.deviceMs * 1e6 / (8 * BATCH);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

if (import.meta.main) {
  const rounds = Number(Deno.args[0] ?? 300);
  for (const isPacked of [false, true]) {
    for (const isOneByOne of [false, true]) {
      const benches = KINDS.map((kept) => new PairBench(LIVE, { kept, isPacked }));
      const times: number[][] = KINDS.map(() => []);
      for (let i = 0; i < rounds; i++) {
        benches.forEach((bench, kind) => times[kind].push(round(bench, isOneByOne)));
      }
      const line = KINDS.map((kept, kind) => {
        const ratio = median(times[kind].map((time, i) => time / times[0][i]));
        const least = Math.min(...times[kind]);
        return `${kept} ${least.toFixed(0)} ns (${((ratio - 1) * 100).toFixed(1)} %)`;
      });
      const name = `${isPacked ? "packed" : "split"}, ${isOneByOne ? "one by one" : "batches"}`;
      console.log(`${name}: ${line.join(", ")}`);
    }
  }
}
