/**
 * A device as bytes, from which a journal is replayed: what a saved state has (`saved_state.ts`), and what only the same guest in
 * the same VMM still needs.
 *
 * That is, besides domains and mappings: the sequence number of the first entry of the journal that is not in it; guest memory;
 * what is known of the guest, exactly; and the *kinds* of mapped pages where they are not what guest memory says now, since a page that is
 * mapped stays what it was when it was first mapped, RAM or device memory.
 *
 * Little endian: magic, version, sequence number, flags (bits 2:0 bypass as in entries, bit 3 a state was loaded and not gone on
 * with, bit 4 memory has changed since), state of life, numbers of regions, of runs, of endpoints of life, bytes of the saved
 * state (u32 each); then the regions (first and last page), the runs (first and last page of the region that they are of,
 * or -1 twice for device memory; first and last page), f64 each; the endpoints, u32 each; the saved state. Ranges are inclusive.
 */
import type { PageList } from "../../../iommufd/mod.ts";
import type { FaultEvents } from "../fault_events.ts";
import type { LifeState } from "../guest_life.ts";
import { finish } from "../pieces.ts";
import { readState, rebuild, writeState } from "../saved_state.ts";
import { bypassFlags, type ReplayParts, restoreBypass } from "./replay.ts";

/** The first word: "VIOS". */
const MAGIC = 0x534f4956;
/** The layout described above. */
const VERSION = 1;
const HEADER_WORDS = 9;
const FLAG_LOADED = 1 << 3;
const FLAG_MEMORY_CHANGED = 1 << 4;
const LIFE_STATES: readonly LifeState[] = ["none", "known", "lost", "unknown"];
/** Doubles of a region and of a run. */
const REGION_DOUBLES = 2;
const RUN_DOUBLES = 4;

/** The parts of a device that a snapshot has. */
export interface SnapshotParts extends ReplayParts {
  /** Fault reports that wait. */
  readonly faults: FaultEvents;
  /** What mappings hold. */
  readonly guest: PageList;
}

/** A held run that is not what guest memory is now; the region's pages, or -1 for device memory. */
interface KeptRun {
  readonly regionFirst: number;
  readonly regionLast: number;
  readonly first: number;
  readonly last: number;
}

/** Writes a snapshot. The device must not be in the middle of something. */
export function writeSnapshot(parts: SnapshotParts, sequence: number): Uint8Array<ArrayBuffer> {
  const { life, lives, config, faults, ram, iommu, guest } = parts;
  const state = finish(
    writeState(
      { bypass: config.bypass, givenBack: undefined, reports: faults.save() },
      iommu,
    ),
  );
  const known = life.copy();
  const { regions } = ram;
  const runs: KeptRun[] = [...guest.held.outlivedRuns(regions)].map(({ region, first, last }) => ({
    regionFirst: region?.firstIndex ?? -1,
    regionLast: region?.lastIndex ?? -1,
    first,
    last,
  }));
  const flags = bypassFlags(config) | (lives.isLoaded ? FLAG_LOADED : 0) |
    (lives.memoryHasChanged ? FLAG_MEMORY_CHANGED : 0);
  const doubles = [
    ...regions.flatMap(({ firstIndex, lastIndex }) => [firstIndex, lastIndex]),
    ...runs.flatMap((run) => [run.regionFirst, run.regionLast, run.first, run.last]),
  ];
  const words = [
    ...[MAGIC, VERSION, sequence, flags, LIFE_STATES.indexOf(known.state)],
    ...[regions.length, runs.length, known.endpoints.length, state.length],
  ];
  const doublesAt = HEADER_WORDS * 4;
  const endpointsAt = doublesAt + doubles.length * 8;
  const stateAt = endpointsAt + known.endpoints.length * 4;
  const bytes = new Uint8Array(stateAt + state.length);
  const view = new DataView(bytes.buffer);
  words.forEach((word, i) => view.setUint32(i * 4, word, true));
  doubles.forEach((double, i) => view.setFloat64(doublesAt + i * 8, double, true));
  known.endpoints.forEach((endpoint, i) => view.setUint32(endpointsAt + i * 4, endpoint, true));
  bytes.set(state, stateAt);
  return bytes;
}

/**
 * The sequence number of the first entry that is not in a snapshot.
 *
 * @returns One line if it is not a snapshot that this program can read.
 */
export function sequenceOf(snapshot: Uint8Array): number | string {
  const view = new DataView(snapshot.buffer, snapshot.byteOffset, snapshot.byteLength);
  if (snapshot.length < HEADER_WORDS * 4 || view.getUint32(0, true) !== MAGIC) {
    return "Cannot read the snapshot: it does not begin as one does";
  }
  const version = view.getUint32(4, true);
  if (version === VERSION) return view.getUint32(8, true);
  return `Cannot read the snapshot: its version is ${version}, this program knows ${VERSION}`;
}

/**
 * Makes a new device what a snapshot says. It must be one that {@linkcode sequenceOf} can read.
 *
 * @returns One line if it does not fit the device.
 */
export function readSnapshot(snapshot: Uint8Array, parts: SnapshotParts): string | undefined {
  const { life, lives, config, faults, iommu, guest } = parts;
  const view = new DataView(snapshot.buffer, snapshot.byteOffset, snapshot.byteLength);
  const [flags, lifeState, regionCount, runCount, endpointCount, stateLength] = [
    ...[3, 4, 5, 6, 7, 8],
  ].map((word) => view.getUint32(word * 4, true));
  const regionsAt = HEADER_WORDS * 4;
  const runsAt = regionsAt + regionCount * REGION_DOUBLES * 8;
  const endpointsAt = runsAt + runCount * RUN_DOUBLES * 8;
  const stateAt = endpointsAt + endpointCount * 4;
  if (stateAt + stateLength !== snapshot.length) {
    return "Cannot read the snapshot: its length is wrong";
  }
  const double = (at: number, i: number): number => view.getFloat64(at + i * 8, true);
  const regions = Array.from({ length: regionCount }, (_, i) => ({
    first: double(regionsAt, i * REGION_DOUBLES),
    last: double(regionsAt, i * REGION_DOUBLES + 1),
  }));
  const runs: KeptRun[] = Array.from({ length: runCount }, (_, i) => ({
    regionFirst: double(runsAt, i * RUN_DOUBLES),
    regionLast: double(runsAt, i * RUN_DOUBLES + 1),
    first: double(runsAt, i * RUN_DOUBLES + 2),
    last: double(runsAt, i * RUN_DOUBLES + 3),
  }));
  const state = finish(readState(snapshot.subarray(stateAt)));
  if (typeof state === "string") return state;
  // Held while they are what they were, so that the mappings of them find them so.
  const problem = holdRuns(runs, parts) ?? addRegions(regions, parts) ??
    finish(rebuild(state.domains, iommu));
  for (const { first, last } of runs) guest.held.letGo(first, last);
  if (problem !== undefined) return problem;
  restoreBypass(config, flags);
  life.assign({
    state: LIFE_STATES[lifeState],
    endpoints: Array.from(
      { length: endpointCount },
      (_, i) => view.getUint32(endpointsAt + i * 4, true),
    ),
  });
  faults.restore(state.reports);
  if ((flags & FLAG_LOADED) !== 0) lives.restoreLoaded(state, (flags & FLAG_MEMORY_CHANGED) !== 0);
  return undefined;
}

/** Holds runs as what they were: of regions that are added for it and removed again, or as device memory. */
function holdRuns(runs: readonly KeptRun[], { ram, guest }: SnapshotParts): string | undefined {
  for (let i = 0; i < runs.length;) {
    const { regionFirst, regionLast } = runs[i];
    const isRam = regionFirst >= 0;
    if (isRam && !ram.addPages(regionFirst, regionLast)) {
      return "Cannot read the snapshot: memory overlaps";
    }
    for (; i < runs.length; i++) {
      const run = runs[i];
      if (run.regionFirst !== regionFirst || run.regionLast !== regionLast) break;
      if (!guest.held.hold(run.first, run.last)) {
        return "Cannot read the snapshot: memory is lacking";
      }
    }
    if (isRam) ram.removePages(regionFirst, regionLast);
  }
  return undefined;
}

function addRegions(
  regions: readonly { readonly first: number; readonly last: number }[],
  { ram }: SnapshotParts,
): string | undefined {
  return regions.every(({ first, last }) => ram.addPages(first, last))
    ? undefined
    : "Cannot read the snapshot: memory overlaps";
}
