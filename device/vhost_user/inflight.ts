/**
 * The record of requests in flight (GET_INFLIGHT_FD, SET_INFLIGHT_FD): memory that the front end keeps while
 * this process may end and another one take over.
 *
 * Each queue has a region of its own, one after the other; the queue reads and writes it.
 */
import { createMemoryFile, type Descriptor, SharedMemory } from "../host/mod.ts";
import { inflightBytes } from "../../vring/mod.ts";
import { readU64, writeU64 } from "./protocol.ts";

/** Bytes of the payload that count: size u64, offset u64, queues u16, queue size u16; some send 4 more. */
const PAYLOAD_BYTES = 20;
/** Most entries of a queue. */
const MAX_QUEUE_SIZE = 32768;

/** What an inflight message says. */
interface Description {
  readonly size: number;
  readonly offset: number;
  readonly queues: number;
  readonly queueSize: number;
}

/** A new record and the reply that describes it. */
export interface NewRecord {
  /** The memory, all zeros; the caller's. */
  readonly file: Descriptor;
  /** The payload of the reply, as long as the request's. */
  readonly reply: Uint8Array;
}

/**
 * Makes a record as GET_INFLIGHT_FD asks.
 *
 * @param data The request's payload, of `size` bytes.
 * @param queueCount Most queues that there can be.
 * @returns the record, or why it was refused.
 */
export function createRecord(
  data: DataView,
  size: number,
  queueCount: number,
  packed: boolean,
): NewRecord | string {
  const asked = describe(data);
  const problem = check(asked, queueCount);
  if (problem !== undefined) return problem;
  const bytes = asked.queues * inflightBytes(packed, asked.queueSize);
  const reply = new Uint8Array(size);
  reply.set(new Uint8Array(data.buffer, data.byteOffset, PAYLOAD_BYTES));
  const answer = new DataView(reply.buffer);
  writeU64(answer, 0, bytes);
  writeU64(answer, 8, 0);
  return { file: createMemoryFile("viommu-inflight", bytes), reply };
}

/** A record that the front end handed over. */
export class InflightRecord {
  readonly #memory: SharedMemory;
  readonly #queues: number;
  readonly #regionBytes: number;

  private constructor(memory: SharedMemory, queues: number, bytes: number) {
    this.#memory = memory;
    this.#queues = queues;
    this.#regionBytes = bytes;
  }

  /** Maps a record as SET_INFLIGHT_FD describes it, or returns why it cannot; the descriptor stays the caller's. */
  static map(
    data: DataView,
    file: Descriptor,
    queueCount: number,
    packed: boolean,
  ): InflightRecord | string {
    const given = describe(data);
    const problem = check(given, queueCount);
    if (problem !== undefined) return problem;
    const bytes = inflightBytes(packed, given.queueSize);
    if (given.size < given.queues * bytes) {
      return `its size of ${given.size} does not hold ${given.queues} queues of ${given.queueSize}`;
    }
    const memory = SharedMemory.map(file, given.offset, given.size);
    return typeof memory === "string" ? memory : new InflightRecord(memory, given.queues, bytes);
  }

  /** A queue's region; null for one that the record does not cover. */
  region(index: number): Uint8Array | null {
    if (index >= this.#queues) return null;
    return new Uint8Array(this.#memory.buffer, index * this.#regionBytes, this.#regionBytes);
  }

  /** Unmaps it. No queue may use it any more. */
  close(): void {
    this.#memory.close();
  }
}

function describe(data: DataView): Description {
  return {
    size: readU64(data, 0),
    offset: readU64(data, 8),
    queues: data.getUint16(16, true),
    queueSize: data.getUint16(18, true),
  };
}

function check({ queues, queueSize }: Description, queueCount: number): string | undefined {
  if (queues < 1 || queues > queueCount) return `it is for ${queues} queues of ${queueCount}`;
  if (queueSize < 1 || queueSize > MAX_QUEUE_SIZE) return `it is for queues of size ${queueSize}`;
  return undefined;
}
