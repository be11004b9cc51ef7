/** What the API tells of the process that serves for a holder. */
import type { ProcessState } from "../api/mod.ts";
import type { ProcessRecord } from "../holder/mod.ts";

/** The state of this process, the holder's record included. */
export function processState(
  record: ProcessRecord,
  generation: number,
  startedAt: Date,
): ProcessState {
  const { holder, deaths, lastDeath, lastEnd, pauses, medianPause, longestPause } = record;
  return {
    pid: Deno.pid,
    holder,
    generation,
    startedAt: startedAt.toISOString(),
    spare: record.hasSpare,
    deaths,
    lastDeath: lastDeath === 0 ? null : { at: new Date(lastDeath).toISOString(), ...lastEnd },
    pauses: {
      count: pauses,
      medianMilliseconds: rounded(medianPause),
      longestMilliseconds: rounded(longestPause),
    },
  };
}

/** To a hundredth. */
function rounded(milliseconds: number): number {
  return Math.round(milliseconds * 100) / 100;
}
