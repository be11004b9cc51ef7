/**
 * The memory that another process scribbles over, and memory beside it that shows whether anything was written where
 * nothing has a right to write.
 *
 * @module
 */
import { assert } from "@std/assert";
import {
  createMemoryFile,
  type Descriptor,
  mapMemoryFile,
  type SharedMemory,
} from "../../device/host/mod.ts";
import type { Random } from "../guest/random.ts";
import {
  CONTROL,
  Control,
  DEVICE_AREA,
  DRIVER_AREA,
  FILE_BYTES,
  LOG_BYTES,
  LOG_STEP,
  LOGS,
  MEMORY,
  Mode,
  queuesOf,
  RECORD_STEP,
  recordBytes,
  RECORDS,
  REQUESTS,
  RING_SIZE,
  RING_STEP,
  RINGS,
  SESSIONS,
} from "./scribbled_layout.ts";

/** Guest address and bytes of memory that no descriptor names, wherever its words come from. */
export const CANARY = 0x1234_5678_0000;
export const CANARY_BYTES = 0x2000;
const CANARY_BYTE = 0x5a;
/** What lies between records and logs. */
const GUARD_BYTE = 0xc3;
/** Flags of a packed ring's descriptors: available in a lap of either kind, and all others. */
const AVAILABLE_MARK = 1 << 7;
const USED_MARK = 1 << 15;
const OTHER_FLAGS = 0x7f7f;

/** How the rings of all sessions are. */
export interface ScribbledMode {
  readonly packed: boolean;
  readonly eventIndex: boolean;
  readonly inOrder: boolean;
  /** Whether devices behind the IOMMU are attached to a domain; otherwise they go past it. */
  readonly translated: boolean;
  /** Whether a record of requests in flight is kept. */
  readonly records: boolean;
  /** Whether writes are logged. */
  readonly logs: boolean;
  /** Whether records and logs lie in guest memory, and so in rings and requests, too. */
  readonly overlaid: boolean;
}

/** The memory. */
export class ScribbledMemory implements Disposable {
  /** The file that is scribbled over; guest memory is at its beginning. */
  readonly file: Descriptor = createMemoryFile("scribbled", FILE_BYTES);
  /** The file of the memory at {@linkcode CANARY}. */
  readonly canaryFile: Descriptor = createMemoryFile("canary", CANARY_BYTES);
  readonly bytes: Uint8Array;
  readonly data: DataView;
  readonly #mapping: SharedMemory = mapMemoryFile(this.file, 0, FILE_BYTES);
  readonly #canary: SharedMemory = mapMemoryFile(this.canaryFile, 0, CANARY_BYTES);
  readonly #control: Int32Array;
  #mode: ScribbledMode | undefined;

  /** Memory that is clear. */
  constructor() {
    this.bytes = new Uint8Array(this.#mapping.buffer);
    this.data = new DataView(this.#mapping.buffer);
    this.#control = new Int32Array(this.#mapping.buffer, CONTROL);
    this.bytes.fill(GUARD_BYTE, MEMORY, CONTROL);
    new Uint8Array(this.#canary.buffer).fill(CANARY_BYTE);
  }

  /** How often the other process has scribbled, in thousands. */
  get scribbles(): number {
    return Atomics.load(this.#control, Control.COUNT);
  }

  /** How rings are from now on. */
  set mode(mode: ScribbledMode) {
    this.#mode = mode;
    const bits = (mode.packed ? Mode.PACKED : 0) | (mode.translated ? Mode.TRANSLATED : 0);
    Atomics.store(this.#control, Control.MODE, bits);
  }

  get mode(): ScribbledMode {
    if (this.#mode === undefined) throw new Error("No session has begun");
    return this.#mode;
  }

  /** Where a session's record of requests in flight is in the file. */
  recordOf(session: number): number {
    return (this.mode.overlaid ? REQUESTS : RECORDS) + session * RECORD_STEP;
  }

  /** Where a session's dirty log is in the file. */
  logOf(session: number): number {
    return this.mode.overlaid ? session * RING_STEP : LOGS + session * LOG_STEP;
  }

  /** A record of a ring of which nothing is in flight. The other process soon has it say otherwise. */
  clearRecord(session: number, ring: number): void {
    const bytes = recordBytes(this.mode.packed);
    const at = this.recordOf(session) + ring * bytes;
    this.bytes.fill(0, at, at + bytes);
    if (this.mode.packed) return;
    // Features u64, version u16, entries u16: one that has begun, and is gone by.
    this.data.setUint16(at + 8, 1, true);
    this.data.setUint16(at + 10, RING_SIZE, true);
  }

  /** Nothing was ever available in a ring. What its descriptors say stays. */
  clearRing(ring: number): void {
    this.bytes.fill(0, ring * RING_STEP + DRIVER_AREA, (ring + 1) * RING_STEP);
  }

  /**
   * Makes what is in the rings available anew, whatever it is, as another processor of the guest's might: the other
   * process alone would not keep a device busy on a host that has nothing to spare for it.
   */
  refill(random: Random): void {
    const { data } = this;
    for (let at = 0; at < RINGS * RING_STEP; at += RING_STEP) {
      if (this.mode.packed) {
        const wraps = random.below(2 ** RING_SIZE);
        for (let slot = 0; slot < RING_SIZE; slot++) {
          const flags = at + 16 * slot + 14;
          const marks = (wraps >> slot & 1) === 0 ? USED_MARK : AVAILABLE_MARK;
          data.setUint16(flags, data.getUint16(flags, true) & OTHER_FLAGS | marks, true);
        }
      } else {
        const used = data.getUint16(at + DEVICE_AREA + 2, true);
        data.setUint16(at + DRIVER_AREA + 2, used + random.below(RING_SIZE + 1) & 0xffff, true);
      }
    }
  }

  /** Throws if anything has changed that nothing has a right to write. No session runs. */
  check(): void {
    assertUnchanged(new Uint8Array(this.#canary.buffer), CANARY_BYTE, "memory that no chain names");
    let at = MEMORY;
    const check = (end: number) => {
      const what = `the file from 0x${at.toString(16)} on`;
      assertUnchanged(this.bytes.subarray(at, end), GUARD_BYTE, what);
    };
    for (let session = 0; session < SESSIONS; session++) {
      const record = RECORDS + session * RECORD_STEP;
      check(record);
      at = record + queuesOf(session) * recordBytes(this.mode.packed);
    }
    for (let session = 0; session < SESSIONS; session++) {
      const log = LOGS + session * LOG_STEP;
      check(log);
      at = log + LOG_BYTES;
    }
    check(CONTROL);
    // The next sessions' records may be of the shorter kind.
    this.bytes.fill(GUARD_BYTE, RECORDS, LOGS);
  }

  [Symbol.dispose](): void {
    for (const each of [this.#canary, this.canaryFile, this.#mapping, this.file]) each.close();
  }
}

function assertUnchanged(bytes: Uint8Array, value: number, what: string): void {
  const at = bytes.findIndex((byte) => byte !== value);
  assert(at < 0, `${what} has changed, at byte ${at}`);
}
