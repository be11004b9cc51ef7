/**
 * A small front end: what a VMM does to attach a device, with real shared memory and real rings. The demo,
 * tests and benches drive back ends with it, in another process or in their own.
 *
 * Every wait is awaited, so both ends may live on one event loop. One message at a time: await each call
 * before the next. An Error is thrown where the back end refuses a message or has closed the connection.
 */
import {
  createMemoryFile,
  type Descriptor,
  mapMemoryFile,
  PollSet,
  type SharedMemory,
  UnixStream,
} from "../host/mod.ts";
import { GuestMemory, type MemoryRegion } from "../../vring/mod.ts";
import { Connection } from "./connection.ts";
import { servedMessage } from "./message_table.ts";
import { FrontEndQueue, type FrontEndQueueOptions } from "./front_end_queue.ts";
import {
  CONFIG_HEADER_BYTES,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  ProtocolFeature,
  REGION_BYTES,
  Request,
  requestName,
  TransportFeature,
  writeU64,
} from "./protocol.ts";

/** Milliseconds after which a silent back end counts as hung. */
const PATIENCE = 10_000;

/** Which features a front end accepts, and how it behaves. */
export interface FrontEndOptions {
  /** Virtio features 0–31 it accepts; by default all but the dirty log. */
  readonly acceptLow?: number;
  /** Virtio features 32–63 it accepts; by default VERSION_1 alone. */
  readonly acceptHigh?: number;
  /** Protocol features it accepts; all of them by default. */
  readonly acceptProtocol?: number;
  /** What is added to a guest address to make a user address, as a number of 64 bits; by default 2^46. */
  readonly userOffset?: number | bigint;
  /**
   * What is added to a ring's guest address to make its I/O virtual address, by default 0. With ACCESS_PLATFORM
   * rings are handed over so, and their log address, too, as QEMU does (`vhost_virtqueue_set_addr`).
   */
  readonly iovaOffset?: number;
}

/** A piece of guest memory that the front end has made. */
export interface FrontEndRegion {
  /** As its {@linkcode FrontEnd.memory} has it. */
  readonly region: MemoryRegion;
  /** The file, for handing over. */
  readonly file: Descriptor;
  /** Its mapping on this side. */
  readonly mapping: SharedMemory;
}

/** One session of a VMM with a back end. */
export class FrontEnd {
  /** The messages. */
  readonly connection: Connection;
  /** Guest memory, as the driver in the guest sees it. */
  readonly memory: GuestMemory = new GuestMemory();
  /** Agreed virtio features 0–31. */
  featuresLow = 0;
  /** Agreed virtio features 32–63. */
  featuresHigh = 0;
  /** Agreed protocol features. */
  protocolFeatures = 0;

  readonly #options: FrontEndOptions;
  readonly #userOffset: bigint;
  readonly #iovaOffset: number;
  readonly #poll = new PollSet(1);
  readonly #regions: FrontEndRegion[] = [];
  /** Those that the back end does not have. */
  readonly #withdrawn = new Set<FrontEndRegion>();
  readonly #queues: FrontEndQueue[] = [];

  /** Begins a session on a connection, which it owns from now on. */
  constructor(stream: UnixStream, options: FrontEndOptions = {}) {
    this.connection = new Connection(stream);
    this.#options = options;
    this.#userOffset = BigInt(options.userOffset ?? 2 ** 46);
    this.#iovaOffset = options.iovaOffset ?? 0;
  }

  /** Connects to a back end that listens. Throws an OsError if nothing listens there. */
  static connect(path: string, options: FrontEndOptions = {}): FrontEnd {
    return new FrontEnd(UnixStream.connect(path), options);
  }

  /** Agrees on features with the back end and becomes its owner. */
  async negotiate(): Promise<void> {
    const {
      acceptLow = ~TransportFeature.LOG_ALL,
      acceptHigh = TransportFeature.VERSION_1,
      acceptProtocol = -1,
    } = this.#options;
    const features = await this.ask(Request.GET_FEATURES);
    this.featuresLow = (features.getUint32(0, true) & acceptLow) >>> 0;
    this.featuresHigh = (features.getUint32(4, true) & acceptHigh) >>> 0;
    if ((this.featuresLow & TransportFeature.PROTOCOL_FEATURES) !== 0) {
      const protocol = await this.ask(Request.GET_PROTOCOL_FEATURES);
      const agreed = (protocol.getUint32(0, true) & acceptProtocol) >>> 0;
      await this.tell(Request.SET_PROTOCOL_FEATURES, words(agreed, 0));
      this.protocolFeatures = agreed;
    }
    await this.tell(Request.SET_OWNER);
    await this.setFeatures(this.featuresLow, this.featuresHigh);
  }

  /** SET_FEATURES. */
  async setFeatures(low: number, high: number): Promise<void> {
    await this.tell(Request.SET_FEATURES, words(low, high));
    this.featuresLow = low;
    this.featuresHigh = high;
  }

  /** Whether a protocol feature is agreed. */
  agreed(feature: number): boolean {
    return (this.protocolFeatures & feature) !== 0;
  }

  /**
   * Makes guest memory of `size` bytes at `guestAddress`, without handing it over.
   *
   * @param existing The file of memory that there is already, as for a second back end that serves the same
   * guest; it stays the caller's.
   */
  createMemory(guestAddress: number, size: number, existing?: Descriptor): FrontEndRegion {
    const file = existing?.duplicate() ?? createMemoryFile("guest-memory", size);
    const mapping = mapMemoryFile(file, 0, size);
    const region = { guestAddress, size, buffer: mapping.buffer, offset: 0 };
    const error = this.memory.add(region);
    if (error !== undefined) {
      mapping.close();
      file.close();
      throw new RangeError(error.message);
    }
    const made = { region, file, mapping };
    this.#regions.push(made);
    return made;
  }

  /** Makes guest memory and hands it over: as a slot of its own where that is agreed, else as a new table. */
  async addMemory(
    guestAddress: number,
    size: number,
    existing?: Descriptor,
  ): Promise<FrontEndRegion> {
    const made = this.createMemory(guestAddress, size, existing);
    await this.#handOver(made);
    return made;
  }

  /** Hands over guest memory that was withdrawn. */
  async returnMemory(made: FrontEndRegion): Promise<void> {
    this.#withdrawn.delete(made);
    await this.#handOver(made);
  }

  /** Hands over all guest memory that is not withdrawn in one table. */
  async setMemoryTable(): Promise<void> {
    const regions = this.#regions.filter((each) => !this.#withdrawn.has(each));
    const payload = new Uint8Array(8 + regions.length * REGION_BYTES);
    new DataView(payload.buffer).setUint32(0, regions.length, true);
    regions.forEach(({ region }, i) => this.#putRegion(payload, 8 + i * REGION_BYTES, region));
    await this.tell(Request.SET_MEM_TABLE, payload, regions.map((each) => each.file));
  }

  /** Takes guest memory away from the back end; the driver in the guest keeps it. */
  async withdrawMemory(made: FrontEndRegion): Promise<void> {
    if (!this.#regions.includes(made)) {
      throw new RangeError("Cannot withdraw memory that is not there");
    }
    this.#withdrawn.add(made);
    if (this.agreed(ProtocolFeature.CONFIGURE_MEM_SLOTS)) {
      const payload = new Uint8Array(8 + REGION_BYTES);
      this.#putRegion(payload, 8, made.region);
      await this.tell(Request.REM_MEM_REG, payload);
    } else {
      await this.setMemoryTable();
    }
  }

  /** Takes guest memory away from the back end, and then from this side. */
  async removeMemory(made: FrontEndRegion): Promise<void> {
    await this.withdrawMemory(made);
    this.#withdrawn.delete(made);
    this.#regions.splice(this.#regions.indexOf(made), 1);
    this.memory.remove(made.region.guestAddress, made.region.size);
    made.mapping.close();
    made.file.close();
  }

  /** Lays out a ring in guest memory and starts it. */
  async startQueue(index: number, options: FrontEndQueueOptions): Promise<FrontEndQueue> {
    const queue = new FrontEndQueue(index, this.memory, options, {
      low: this.featuresLow,
      high: this.featuresHigh,
    });
    this.#queues.push(queue);
    await this.resumeQueue(queue, options.base ?? queue.freshBase);
    return queue;
  }

  /** Starts a ring, as a VMM does for a new driver or where it was stopped. */
  async resumeQueue(queue: FrontEndQueue, base: number): Promise<void> {
    const { index, driver } = queue;
    await this.tell(Request.SET_VRING_NUM, words(index, driver.size));
    await this.tell(Request.SET_VRING_BASE, words(index, base));
    await this.setQueueAddress(queue);
    await this.tell(Request.SET_VRING_KICK, words(index, 0), [queue.kickEvent.descriptor]);
    await this.tell(Request.SET_VRING_CALL, words(index, 0), [queue.callEvent.descriptor]);
    await this.tell(Request.SET_VRING_ERR, words(index, 0), [queue.errorEvent.descriptor]);
    if (this.protocolFeatures !== 0) await this.enableQueue(queue, true);
  }

  /** SET_VRING_ADDR; with `flags` 1 writes to the used ring are logged. */
  async setQueueAddress(queue: FrontEndQueue, flags = 0): Promise<void> {
    const payload = new Uint8Array(40);
    const data = new DataView(payload.buffer);
    const { index, driver } = queue;
    data.setUint32(0, index, true);
    data.setUint32(4, flags, true);
    const translated = (this.featuresHigh & TransportFeature.ACCESS_PLATFORM) !== 0;
    const offset = translated ? BigInt(this.#iovaOffset) : this.#userOffset;
    data.setBigUint64(8, BigInt(driver.descriptors) + offset, true);
    data.setBigUint64(16, BigInt(driver.deviceArea) + offset, true);
    data.setBigUint64(24, BigInt(driver.driverArea) + offset, true);
    writeU64(data, 32, driver.deviceArea + (translated ? this.#iovaOffset : 0));
    await this.tell(Request.SET_VRING_ADDR, payload);
  }

  /** SET_VRING_ENABLE. */
  async enableQueue(queue: FrontEndQueue, enabled: boolean): Promise<void> {
    await this.tell(Request.SET_VRING_ENABLE, words(queue.index, enabled ? 1 : 0));
  }

  /** Stops a ring and returns the base from which it would go on. */
  async stopQueue(queue: FrontEndQueue): Promise<number> {
    const reply = await this.ask(Request.GET_VRING_BASE, words(queue.index, 0));
    return reply.getUint32(4, true);
  }

  /** Reads the config space. */
  async readConfig(offset: number, length: number): Promise<Uint8Array> {
    const payload = new Uint8Array(CONFIG_HEADER_BYTES + length);
    const data = new DataView(payload.buffer);
    data.setUint32(0, offset, true);
    data.setUint32(4, length, true);
    const reply = await this.ask(Request.GET_CONFIG, payload);
    if (reply.byteLength !== payload.length) {
      throw new Error(`Cannot read ${length} bytes of config space from ${offset}`);
    }
    return new Uint8Array(reply.buffer, reply.byteOffset + CONFIG_HEADER_BYTES, length);
  }

  /** Writes the config space. */
  async writeConfig(offset: number, bytes: Uint8Array, flags = 0): Promise<void> {
    const payload = new Uint8Array(CONFIG_HEADER_BYTES + bytes.length);
    const data = new DataView(payload.buffer);
    data.setUint32(0, offset, true);
    data.setUint32(4, bytes.length, true);
    data.setUint32(8, flags, true);
    payload.set(bytes, CONFIG_HEADER_BYTES);
    await this.tell(Request.SET_CONFIG, payload);
  }

  /** RESET_DEVICE. */
  async resetDevice(): Promise<void> {
    await this.tell(Request.RESET_DEVICE);
  }

  /**
   * Sends a message without a reply of its own; asks for a reply to it where REPLY_ACK is agreed.
   *
   * @returns when it is acknowledged, or just sent.
   */
  async tell(
    request: number,
    payload: Uint8Array = new Uint8Array(0),
    descriptors: readonly Descriptor[] = [],
  ): Promise<void> {
    const acknowledged = this.agreed(ProtocolFeature.REPLY_ACK);
    await this.#send(request, acknowledged ? FLAG_NEED_REPLY : 0, payload, descriptors);
    if (!acknowledged) return;
    const reply = await this.#reply(request);
    if (reply.byteLength !== 8 || reply.getUint32(0, true) !== 0) {
      throw new Error(`Cannot ${requestName(request)}: the back end refused`);
    }
  }

  /** Sends a message that has a reply of its own and returns the reply's payload. */
  async ask(
    request: number,
    payload: Uint8Array = new Uint8Array(0),
    descriptors: readonly Descriptor[] = [],
  ): Promise<DataView> {
    const message = servedMessage(request);
    if (message !== undefined && message.replies !== true) {
      throw new RangeError(`Cannot wait for a reply of ${requestName(request)}: it has none`);
    }
    await this.#send(request, 0, payload, descriptors);
    return await this.#reply(request);
  }

  /** Ends the session and releases everything; does nothing the second time. */
  close(): void {
    if (!this.connection.stream.descriptor.isOpen) return;
    this.connection.close();
    this.#poll.close();
    for (const queue of this.#queues) queue.close();
    for (const { region, file, mapping } of this.#regions) {
      this.memory.remove(region.guestAddress, region.size);
      mapping.close();
      file.close();
    }
    this.#regions.length = 0;
  }

  /** Hands a region over: as a slot of its own where that is agreed, else as a new table. */
  async #handOver(made: FrontEndRegion): Promise<void> {
    if (!this.agreed(ProtocolFeature.CONFIGURE_MEM_SLOTS)) return await this.setMemoryTable();
    const payload = new Uint8Array(8 + REGION_BYTES);
    this.#putRegion(payload, 8, made.region);
    await this.tell(Request.ADD_MEM_REG, payload, [made.file]);
  }

  #putRegion(payload: Uint8Array, at: number, region: MemoryRegion): void {
    const data = new DataView(payload.buffer, payload.byteOffset);
    writeU64(data, at, region.guestAddress);
    writeU64(data, at + 8, region.size);
    data.setBigUint64(at + 16, BigInt(region.guestAddress) + this.#userOffset, true);
    writeU64(data, at + 24, 0);
  }

  async #send(
    request: number,
    flags: number,
    payload: Uint8Array,
    descriptors: readonly Descriptor[],
  ): Promise<void> {
    let alive = this.connection.send(request, flags, payload, descriptors);
    while (alive && this.connection.hasUnsent) {
      // The back end reads when it comes to it; there is no need to hurry.
      await this.#poll.wait(1);
      alive = this.connection.flush();
    }
    if (!alive) throw new Error(`Cannot send ${requestName(request)}: the back end is gone`);
  }

  async #reply(request: number): Promise<DataView> {
    const { connection } = this;
    const deadline = performance.now() + PATIENCE;
    let result = connection.read();
    while (result === "nothing") {
      this.#poll.clear();
      this.#poll.add(connection.stream.descriptor.number);
      await this.#poll.wait(Math.max(1, deadline - performance.now()));
      result = connection.read();
      if (result === "nothing" && performance.now() > deadline) {
        throw new Error(`Cannot get a reply to ${requestName(request)}: the back end is silent`);
      }
    }
    if (result !== "message") {
      const why = result === "closed" ? "the back end is gone" : result.message;
      throw new Error(`Cannot get a reply to ${requestName(request)}: ${why}`);
    }
    if (connection.request !== request || (connection.flags & FLAG_REPLY) === 0) {
      throw new Error(
        `Cannot get a reply to ${requestName(request)}: ${requestName(connection.request)} came`,
      );
    }
    return new DataView(connection.payload.slice(0, connection.size).buffer);
  }
}

/** A payload of two u32. */
function words(first: number, second: number): Uint8Array {
  const payload = new Uint8Array(8);
  const data = new DataView(payload.buffer);
  data.setUint32(0, first >>> 0, true);
  data.setUint32(4, second >>> 0, true);
  return payload;
}
