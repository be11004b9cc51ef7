/**
 * The messages for migration and recovery, one method each: the dirty log, the record of requests in
 * flight, the device's state.
 *
 * A method returns nothing when the message is done, or one line that says why it was *refused*. Form (sizes,
 * numbers of descriptors, agreed protocol features) has been checked against `message_table.ts` before.
 */
import { type Descriptor, isOtherEnd, SharedMemory } from "../host/mod.ts";
import { DirtyLog } from "../../vring/mod.ts";
import { createRecord, InflightRecord } from "./inflight.ts";
import { FLAG_REPLY, readU64, TransportFeature } from "./protocol.ts";
import type { Refusal, Session } from "./session.ts";
import { StateTransfer } from "./state_transfer.ts";

const { LOG_ALL } = TransportFeature;
/** Answers to SET_DEVICE_STATE_FD and CHECK_DEVICE_STATE. */
const STATE_OK = 0;
const STATE_FAILED = 1;
/** In the reply to SET_DEVICE_STATE_FD: no descriptor comes back, the front end's own is used. */
const STATE_NO_DESCRIPTOR = 0x100;
/** Directions of SET_DEVICE_STATE_FD. */
const STATE_SAVE = 0;
const STATE_LOAD = 1;
const OWN_END = "its descriptor is an end of this connection";

/** Bytes of the payloads of SET_LOG_BASE and SET_INFLIGHT_FD that count. */
const LOG_PAYLOAD_BYTES = 16;
const INFLIGHT_PAYLOAD_BYTES = 20;

/** A message that brought a file, as a process that takes over is told of it. */
export interface HeldPayload {
  /** Its payload. */
  readonly payload: readonly number[];
  /** The descriptor that came with it, as `Descriptor.heldAs` numbers it. */
  readonly heldAs: number;
}

/** What a process that takes over is told of the messages for migration and recovery. */
export interface MigrationState {
  /** SET_LOG_BASE. */
  readonly log: HeldPayload | null;
  /** SET_INFLIGHT_FD. */
  readonly inflight: HeldPayload | null;
}

/** The messages for migration and recovery. */
export class MigrationMessages {
  /** A state that is being saved or loaded, or the last that was. */
  transfer: StateTransfer | undefined;

  readonly #session: Session;
  #dirtyLog: DirtyLog | null = null;
  #dirtyMemory: SharedMemory | undefined;
  #inflight: InflightRecord | undefined;
  #logFile: HeldPayload | null = null;
  #inflightFile: HeldPayload | null = null;

  /** For a session, of which nothing is logged or recorded yet. */
  constructor(session: Session) {
    this.#session = session;
  }

  /** Releases everything. No ring may run any more. */
  close(): void {
    this.#useDirtyLog(undefined);
    this.#useInflight(undefined);
    this.transfer?.close();
  }

  /** The log and the record, for {@linkcode MigrationMessages.restore}. A transfer that is under way is lost. */
  save(): MigrationState {
    return { log: this.#logFile, inflight: this.#inflightFile };
  }

  /**
   * Maps the log and the record of an earlier process. No ring may run yet.
   *
   * @returns nothing, or why one cannot be mapped.
   */
  restore(
    { log, inflight }: MigrationState,
    descriptors: ReadonlyMap<number, Descriptor>,
  ): string | undefined {
    for (const each of [log, inflight]) {
      if (each === null) continue;
      const file = descriptors.get(each.heldAs);
      if (file === undefined) return "the file of the log or of the record of requests is missing";
      const data = new DataView(Uint8Array.from(each.payload).buffer);
      const problem = each === log ? this.#mapLog(data, file) : this.#mapInflight(data, file);
      if (problem !== undefined) return problem;
    }
    return undefined;
  }

  /** Switches the logging of writes to guest memory as LOG_ALL among the agreed features says. */
  applyLogFeature(): void {
    const { memory, featuresLow } = this.#session;
    memory.dirtyLog = (featuresLow & LOG_ALL) !== 0 ? this.#dirtyLog : null;
  }

  /**
   * SET_LOG_BASE: size u64, offset u64 and the log's memory. Front ends change it while rings run.
   *
   * The protocol asks for a reply without giving its length. rust-vmm's front end waits for the 16 that it sent;
   * QEMU's takes any number.
   */
  setLogBase(): Refusal {
    const { data, descriptors, payload, size } = this.#session.connection;
    if (descriptors.length !== 1) return "its descriptor is missing";
    const problem = this.#mapLog(data, descriptors[0]);
    if (problem !== undefined) return problem;
    return this.#session.reply(payload.subarray(0, size));
  }

  /** SET_LOG_FD: log writes are not signalled; the descriptor is closed. */
  setLogFd(): Refusal {
    return undefined;
  }

  /** GET_INFLIGHT_FD: size u64, offset u64, queues u16, queue size u16. */
  getInflightFd(): Refusal {
    const { data, size } = this.#session.connection;
    const { packed } = this.#session.rings.features;
    const record = createRecord(data, size, this.#session.device.queueCount, packed);
    if (typeof record === "string") return record;
    using file = record.file;
    this.#session.connection.send(this.#session.connection.request, FLAG_REPLY, record.reply, [
      file,
    ]);
    return undefined;
  }

  /** SET_INFLIGHT_FD: the same, with the record. */
  setInflightFd(): Refusal {
    const { data, descriptors } = this.#session.connection;
    if (descriptors.length !== 1) return "its descriptor is missing";
    if (this.#session.rings.anyRuns) return "a queue runs";
    return this.#mapInflight(data, descriptors[0]);
  }

  /** SET_DEVICE_STATE_FD: direction u32, phase u32, and the pipe or socket. */
  setDeviceStateFd(): Refusal {
    const { data } = this.#session.connection;
    const refusal = this.#beginTransfer(data.getUint32(0, true), data.getUint32(4, true));
    if (refusal !== undefined) {
      this.#session.log.warnLimited("refused", `SET_DEVICE_STATE_FD failed: ${refusal}`);
      return this.#session.reply64(STATE_FAILED | STATE_NO_DESCRIPTOR, 0);
    }
    this.transfer?.progress();
    return this.#session.reply64(STATE_OK | STATE_NO_DESCRIPTOR, 0);
  }

  /** CHECK_DEVICE_STATE: 0 if the last transfer has succeeded. */
  checkDeviceState(): Refusal {
    const transfer = this.transfer;
    transfer?.progress();
    transfer?.close();
    this.transfer = undefined;
    const error = transfer === undefined ? "there was no transfer" : transfer.error;
    if (error !== undefined) {
      this.#session.log.warnLimited("refused", `The device state was not transferred: ${error}`);
    }
    return this.#session.reply64(error === undefined ? STATE_OK : STATE_FAILED, 0);
  }

  #beginTransfer(direction: number, phase: number): Refusal {
    const { descriptors } = this.#session.connection;
    const [descriptor] = descriptors;
    if (descriptor === undefined) return "its descriptor is missing";
    if (direction !== STATE_SAVE && direction !== STATE_LOAD) return `direction ${direction}`;
    if (phase !== 0) return `phase ${phase}, only 0 (stopped) is known`;
    if (this.#session.rings.anyRuns) return "a queue runs";
    if (!StateTransfer.accepts(descriptor)) return "its descriptor is no pipe or socket";
    if (isOtherEnd(descriptor, this.#session.connection.stream)) return OWN_END;
    this.transfer?.close();
    this.transfer = direction === STATE_LOAD
      ? StateTransfer.load(descriptor, this.#session)
      : StateTransfer.save(descriptor, this.#session);
    descriptors.length = 0;
    return undefined;
  }

  /** Logs writes in a file as the payload of SET_LOG_BASE describes it; nothing, or why that cannot be. */
  #mapLog(data: DataView, file: Descriptor): Refusal {
    const memory = SharedMemory.map(file, readU64(data, 8), readU64(data, 0));
    if (typeof memory === "string") return `the log's file: ${memory}`;
    this.#useDirtyLog(memory);
    this.#logFile = heldFile(data, LOG_PAYLOAD_BYTES, file);
    return undefined;
  }

  /** Uses a record as the payload of SET_INFLIGHT_FD describes it; nothing, or why that cannot be. */
  #mapInflight(data: DataView, file: Descriptor): Refusal {
    const { packed } = this.#session.rings.features;
    const record = InflightRecord.map(data, file, this.#session.device.queueCount, packed);
    if (typeof record === "string") return record;
    this.#useInflight(record);
    this.#inflightFile = heldFile(data, INFLIGHT_PAYLOAD_BYTES, file);
    return undefined;
  }

  #useDirtyLog(memory: SharedMemory | undefined): void {
    this.#dirtyLog = memory === undefined ? null : new DirtyLog(new Uint8Array(memory.buffer));
    this.applyLogFeature();
    this.#session.rings.setDirtyLog(this.#dirtyLog);
    this.#dirtyMemory?.close();
    this.#dirtyMemory = memory;
  }

  #useInflight(record: InflightRecord | undefined): void {
    for (const ring of this.#session.rings.rings) {
      ring.inflight = record?.region(ring.index) ?? null;
    }
    this.#inflight?.close();
    this.#inflight = record;
  }
}

function heldFile(data: DataView, size: number, { heldAs }: Descriptor): HeldPayload {
  return { payload: [...new Uint8Array(data.buffer, data.byteOffset, size)], heldAs };
}
