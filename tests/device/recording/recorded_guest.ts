/**
 * A device and a driver in this process whose life is recorded, and what a recording says of it.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { concat } from "@std/bytes";
import { configurationText } from "../../../device/recording/configuration.ts";
import { RecordBuffer } from "../../../device/recording/record_buffer.ts";
import { RecordedDevice } from "../../../device/recording/recorded_device.ts";
import { Recorder } from "../../../device/recording/recorder.ts";
import { readerOf } from "../../../device/recording/recording_reader.ts";
import { Replay } from "../../../device/recording/replay.ts";
import type { DeviceOptions, IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "../in_process_guest.ts";

/** Small enough that a replay can be made thousands of times. */
export const SMALL_OPTIONS: DeviceOptions = {
  ...DEFAULT_OPTIONS,
  endpoints: [
    { first: 0, last: 0x7f, format: "vtd-ss" },
    { first: 0x40, last: 0x7f, format: "smmuv3-s1" },
  ],
  maxDomains: 6,
  maxMappings: 600,
  maxTableMemory: 1 << 20,
};

/** Most table memory that a replay takes here. */
export const MOST_TABLES: number = 64 << 20;

/** A recorded guest. */
export class RecordedGuest extends InProcessGuest {
  readonly buffer: RecordBuffer;
  readonly recorder: Recorder;

  /** @param dma Whether translations of endpoints are recorded. */
  constructor(
    options: DeviceOptions = SMALL_OPTIONS,
    { limit = Infinity, dma = true }: { readonly limit?: number; readonly dma?: boolean } = {},
  ) {
    const buffer = new RecordBuffer(limit);
    const head = { program: "0.0.0", began: 0, dma };
    const recorder = new Recorder(buffer, configurationText(head, options), 0);
    super(options, ~0, (given) => new RecordedDevice(given, recorder, dma));
    this.buffer = buffer;
    this.recorder = recorder;
  }

  /** What is recorded and was not asked for before. */
  takeBytes(): Uint8Array<ArrayBuffer> {
    return bytesOf(this.buffer);
  }
}

/** What a buffer holds, as it would be written to a file. */
export function bytesOf(buffer: RecordBuffer): Uint8Array<ArrayBuffer> {
  const pieces: Uint8Array[] = [];
  for (let piece = buffer.take(); piece !== undefined; piece = buffer.take()) {
    pieces.push(piece.slice());
    buffer.written();
  }
  return concat(pieces);
}

/** Begins a replay. Throws if that cannot be. */
export function replayOf(
  bytes: Uint8Array,
  format?: string,
  maxTableMemory = MOST_TABLES,
): Replay {
  const replay = Replay.begin(readerOf(bytes), { format, maxTableMemory });
  if (typeof replay === "string") throw new Error(`Cannot replay: ${replay}`);
  return replay;
}

/** Replays all of it. Throws if it is no recording. */
export function replayAll(bytes: Uint8Array, format?: string): Replay {
  const replay = replayOf(bytes, format);
  while (replay.step());
  assertEquals(replay.problem, undefined);
  return replay;
}

/** The tables of a device, word for word, and how much of the memory is in use. */
export function tablesOf({ hardware: { memory } }: IommuDevice): readonly [number, Int32Array] {
  return [memory.used, memory.words];
}

/** Pages of table memory that are compared. */
const COMPARED_PAGES = 4096;

/** Two devices have the same tables in the same places. */
export function assertSameTables(actual: IommuDevice, expected: IommuDevice): void {
  const [used, all] = tablesOf(actual);
  const [expectedUsed, expectedWords] = tablesOf(expected);
  assertEquals(used, expectedUsed);
  // Pages are taken from the beginning of the memory, which may be large.
  assert(used < COMPARED_PAGES / 2);
  const words = all.subarray(0, COMPARED_PAGES * 1024);
  const at = words.findIndex((word, i) => word !== expectedWords[i]);
  assertEquals(at, -1, `word ${at} of the tables`);
}

/** Two devices have the same tables in the same places, and the same state. */
export function assertSameDevice(actual: IommuDevice, expected: IommuDevice): void {
  assertSameTables(actual, expected);
  assertEquals(actual.bypass, expected.bypass);
  assertEquals(actual.life.copy(), expected.life.copy());
  assertEquals(actual.requests.counts, expected.requests.counts);
  assertEquals(faultsOf(actual), faultsOf(expected));
}

function faultsOf({ endpoints }: IommuDevice): readonly (readonly [number, number])[] {
  return endpoints.list().map(({ id, faults }) => [id, faults]);
}
