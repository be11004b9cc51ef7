/**
 * The memory of a session with a back end: one file of our own, with the rings and the buffers that requests are copied
 * through. It is the only memory in the back end's table.
 *
 * Each session has a file of its own. A back end that was cut off keeps its mapping of the old file, which is not used
 * any more. The file's size is sealed before it is sent, so it can neither shrink nor grow.
 *
 * Addresses are bytes, as the back end sees them in descriptors.
 */
import { PAGE_SIZE } from "../../address.ts";
import {
  createMemoryFile,
  type Descriptor,
  OsError,
  sealMemoryFile,
  SharedMemory,
} from "../../host/mod.ts";
import { REGION_BYTES, writeU64 } from "../../vhost_user/mod.ts";
import { GuestMemory, SplitDriverQueue } from "../../../vring/mod.ts";
import { BufferPool } from "./buffer_pool.ts";

/** What the back end calls the first byte of the file in descriptors: not 0, which some take for none. */
const GUEST_BASE = 2 ** 20;
/** What it calls it in ring addresses. */
const USER_BASE = 2 ** 44;
/** Most entries of a ring. */
export const RING_SIZE_MAX = 1024;
/** Descriptors that an indirect table holds; longer chains take as many entries of the ring. */
export const TABLE_LENGTH = 4;

/** One session's memory. */
export class RelayMemory {
  /** The same for a driver's queues. */
  readonly space: GuestMemory = new GuestMemory();
  /** All bytes. */
  readonly bytes: Uint8Array;
  /** Which buffers are in use. */
  readonly pool: BufferPool;
  readonly #file: Descriptor;
  readonly #mapping: SharedMemory;
  readonly #size: number;
  readonly #ringBytes: number;
  readonly #buffers: number;

  /**
   * Makes the file.
   *
   * @param bufferBytes Bytes for buffers; whole pages.
   * @throws {OsError} If the host refuses.
   */
  constructor(queues: number, bufferBytes: number) {
    this.#ringBytes = roundUp(SplitDriverQueue.byteLength(RING_SIZE_MAX, TABLE_LENGTH));
    this.#buffers = this.#ringBytes * queues;
    this.#size = this.#buffers + bufferBytes;
    this.pool = new BufferPool(bufferBytes / PAGE_SIZE, queues);
    this.#file = createMemoryFile("viommu-relay", this.#size);
    try {
      this.#mapping = mapOrThrow(this.#file, this.#size);
      sealMemoryFile(this.#file);
    } catch (error) {
      this.#file.close();
      throw error;
    }
    const { buffer } = this.#mapping;
    this.bytes = new Uint8Array(buffer);
    this.space.add({
      guestAddress: GUEST_BASE,
      size: this.#size,
      buffer,
      offset: 0,
    });
  }

  /** The file, for handing over; closed with the memory. */
  get file(): Descriptor {
    return this.#file;
  }

  /** Address of a queue's ring in descriptors' terms. */
  ringAddress(queue: number): number {
    return GUEST_BASE + queue * this.#ringBytes;
  }

  /** A ring's address as SET_VRING_ADDR has it. */
  userAddress(address: number): number {
    return address - GUEST_BASE + USER_BASE;
  }

  /** Index in `bytes` of a page of the pool. */
  offsetOf(page: number): number {
    return this.#buffers + page * PAGE_SIZE;
  }

  /** Address of a byte in descriptors' terms. */
  addressOf(offset: number): number {
    return GUEST_BASE + offset;
  }

  /** The payload of SET_MEM_TABLE: count u32, padding u32, one region. */
  table(): Uint8Array {
    const payload = new Uint8Array(8 + REGION_BYTES);
    const data = new DataView(payload.buffer);
    data.setUint32(0, 1, true);
    writeU64(data, 8, GUEST_BASE);
    writeU64(data, 16, this.#size);
    writeU64(data, 24, USER_BASE);
    return payload;
  }

  /** Unmaps and closes the file; nothing may touch `bytes` or a ring afterwards. Does nothing the second time. */
  close(): void {
    this.space.replace([]);
    this.#mapping.close();
    this.#file.close();
  }
}

/** A mapping that the host refuses is an error of the host's. */
function mapOrThrow(file: Descriptor, size: number): SharedMemory {
  const mapping = SharedMemory.map(file, 0, size);
  if (typeof mapping !== "string") return mapping;
  throw new OsError(`Cannot map ${size} bytes for a relay: ${mapping}`, "mmap");
}

function roundUp(bytes: number): number {
  return Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE;
}
