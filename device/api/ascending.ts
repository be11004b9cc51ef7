/** Sorts the ids of an unordered set in small pieces of work. */
import type { Work } from "./work.ts";

/** Ids that are sorted at once. */
const RUN = 1024;

/**
 * Gives ids in ascending order, and `undefined` wherever enough work has been done at a time.
 *
 * The set may change meanwhile. An id that is in it all the time is given once; of others, those that were there when
 * they were collected.
 *
 * @param ids The keys of a Map or a Set, which come in the order in which they were added.
 * @param count How many there are at the beginning: what is added later comes behind them.
 */
export function* ascending(
  ids: Iterable<number>,
  count: number,
  work: Work,
): Generator<number | undefined, void> {
  const runs: Uint32Array[] = [];
  let run: number[] = [];
  let left = count;
  if (count > 0) {
    for (const id of ids) {
      run.push(id);
      left--;
      if (run.length === RUN || left === 0) {
        runs.push(Uint32Array.from(run).sort());
        run = [];
      }
      work.add(1);
      if (left === 0) break;
      if (work.isEnough) yield undefined;
    }
  }
  if (run.length > 0) runs.push(Uint32Array.from(run).sort());
  yield* merged(runs, work);
}

/** Gives the ids of sorted runs in ascending order. */
function* merged(
  runs: readonly Uint32Array[],
  work: Work,
): Generator<number | undefined, void> {
  const next = new Uint32Array(runs.length);
  for (;;) {
    let least = -1;
    for (let i = 0; i < runs.length; i++) {
      if (next[i] === runs[i].length) continue;
      if (least < 0 || runs[i][next[i]] < runs[least][next[least]]) least = i;
    }
    if (least < 0) return;
    // Comparing with the heads of many runs is work, too.
    work.add(1 + (runs.length >>> 6));
    yield runs[least][next[least]++];
    if (work.isEnough) yield undefined;
  }
}
