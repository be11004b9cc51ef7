/**
 * How long a device takes for the requests of a recording.
 *
 * All of the recording is replayed in rounds, each with a new device. The clock is read around stretches of requests with
 * nothing else between them, so what it costs to read records is not measured.
 */
import { readerOf } from "./recording_reader.ts";
import { Replay, type ReplayOptions } from "./replay.ts";

/** Requests between two looks at the clock. */
const STRETCH = 256;

/** What was measured. */
export interface ReplayTimes {
  /** Requests of a round. */
  readonly requests: number;
  /** MAPs and UNMAPs among them. */
  readonly mapsAndUnmaps: number;
  /** Milliseconds that the device took for all requests of a round, in the best round. */
  readonly milliseconds: number;
  /** Rounds. */
  readonly rounds: number;
}

/**
 * Replays a recording for some milliseconds, once at least.
 *
 * @returns One clause that says what is wrong, if it cannot be replayed to its end or its cut.
 */
export function measureReplay(
  bytes: Uint8Array,
  options: ReplayOptions,
  milliseconds: number,
): ReplayTimes | string {
  let best: ReplayTimes | undefined;
  const end = performance.now() + milliseconds;
  for (let rounds = 1; best === undefined || performance.now() < end; rounds++) {
    const replay = Replay.begin(readerOf(bytes), options, STRETCH);
    if (typeof replay === "string") return replay;
    while (replay.step());
    replay.settle();
    const { served: requests, mapsAndUnmaps, milliseconds: taken } = replay.requests;
    replay.close();
    if (replay.problem !== undefined) return replay.problem;
    const least = Math.min(taken, best?.milliseconds ?? Infinity);
    best = { requests, mapsAndUnmaps, milliseconds: least, rounds };
  }
  return best;
}
