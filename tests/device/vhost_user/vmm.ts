/**
 * The VMM that replays run: it sends what a list of messages says, byte by byte, and compares every answer byte by byte.
 * Guest memory, rings and events are real; what the messages are is in `vmm_habits.ts`.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import {
  createMemoryFile,
  createPipe,
  type Descriptor,
  mapMemoryFile,
  PollSet,
  readNow,
  type SharedMemory,
  UnixStream,
  writeNow,
} from "../../../device/host/mod.ts";
import {
  Connection,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  FrontEndQueue,
  Request,
  requestName,
  TransportFeature,
} from "../../../device/vhost_user/mod.ts";
import { GuestMemory, inflightBytes } from "../../../vring/mod.ts";
import { joined, longs, setBits, words } from "../../bytes.ts";
import { until } from "../../until.ts";
import type { VmmHabits } from "./vmm_habits.ts";

/** Entries of every ring. */
export const RING_SIZE = 64;
/** Where ring 0 is; the others follow. */
const RINGS = 0x1000;
const RING_BYTES = 0x10000;
/** Bytes of a dirty log: more than the guest has pages for. */
const LOG_BYTES = 0x10000;
/** Milliseconds for an answer. */
const PATIENCE = 10_000;

/** A message and what comes back. */
export interface Message {
  readonly request: number;
  readonly payload?: Uint8Array;
  /** Descriptors, or what gives them once it is the message's turn. */
  readonly files?: readonly Descriptor[] | (() => readonly Descriptor[]);
  /** Whether it asks for the general reply; then that says 0. */
  readonly needsReply?: boolean;
  /** The payload of the reply that the message has of its own, or what looks at it. */
  readonly answer?: Uint8Array | ((payload: DataView) => void);
}

/** What a device answers to every front end. */
export interface DeviceFacts {
  /** Features 0–31 and 32–63. */
  readonly features: readonly [low: number, high: number];
  /** Protocol features. */
  readonly protocol: number;
  /** How many queues it has. */
  readonly queues: number;
  /** Its configuration space. */
  readonly config: Uint8Array;
  /** What a ring address in SET_VRING_ADDR is above the guest's, where an IOMMU translates it. */
  readonly ringShift?: bigint;
}

/** A piece of guest memory. */
export interface VmmRegion {
  readonly guestAddress: number;
  readonly size: number;
  readonly file: Descriptor;
  readonly mapping: SharedMemory;
}

/** A virtual machine's device, as one VMM handles it. */
export class Vmm implements Disposable {
  readonly habits: VmmHabits;
  readonly facts: DeviceFacts;
  /** Guest memory as the driver sees it. */
  readonly memory: GuestMemory = new GuestMemory();
  readonly regions: VmmRegion[] = [];
  /** The rings of the driver that runs. */
  rings: FrontEndQueue[] = [];
  /** Descriptors that the driver has made available on each ring, all of which the device has used. */
  used: number[] = [];
  /** Where each ring goes on, as GET_VRING_BASE said last. */
  bases: number[] = [];
  /** Features that were agreed last in this session. */
  agreed: readonly [low: number, high: number] | undefined;
  /** Whether memory was handed over in this session. */
  hasTable = false;
  /** The record of requests in flight. */
  record: Descriptor | undefined;
  /** The memory of the dirty log. */
  log: VmmRegion | undefined;
  #connection: Connection | undefined;
  #channel: UnixStream | undefined;
  readonly #opened: { close(): void }[] = [];

  /** A machine that is connected to nothing. */
  constructor(habits: VmmHabits, facts: DeviceFacts) {
    this.habits = habits;
    this.facts = facts;
    for (const [address, size] of habits.regions) this.addRegion(address, size);
  }

  /** Features that this VMM and the device have in common. */
  get features(): readonly [low: number, high: number] {
    const [low, high] = this.facts.features;
    return [(low & this.habits.accepts[0]) >>> 0, high & this.habits.accepts[1]];
  }

  /** Protocol features that both have. */
  get protocol(): number {
    return this.facts.protocol & this.habits.wants;
  }

  /** Whether its rings are packed. */
  get isPacked(): boolean {
    return (this.features[1] & TransportFeature.RING_PACKED) !== 0;
  }

  /** More guest memory, not yet handed over. */
  addRegion(guestAddress: number, size: number): VmmRegion {
    const file = createMemoryFile("vmm-memory", size);
    const mapping = mapMemoryFile(file, 0, size);
    const region = { guestAddress, size, file, mapping };
    this.#opened.push(file, mapping);
    this.regions.push(region);
    this.memory.add({ guestAddress, size, buffer: mapping.buffer, offset: 0 });
    return region;
  }

  /** Memory that is handed over no more; it stays mapped here. */
  removeRegion(region: VmmRegion): void {
    this.regions.splice(this.regions.indexOf(region), 1);
    this.memory.remove(region.guestAddress, region.size);
  }

  /** A driver begins: rings that have not been used. */
  newDriver(): void {
    this.#closeRings();
    const [low, high] = this.features;
    for (let i = 0; i < this.facts.queues; i++) {
      const place = { size: RING_SIZE, address: RINGS + i * RING_BYTES };
      this.rings.push(new FrontEndQueue(i, this.memory, place, { low, high }));
    }
    this.used = this.rings.map(() => 0);
    this.bases = this.rings.map((_, i) => this.expectedBase(i));
  }

  /** Where a ring is that the device has served all of (vhost-user.rst, "Vring state"). */
  expectedBase(index: number): number {
    const count = this.used[index];
    if (!this.isPacked) return count & 0xffff;
    const position = count % RING_SIZE | ((Math.floor(count / RING_SIZE) & 1) ^ 1) << 15;
    return (position | position << 16) >>> 0;
  }

  /** Connects to a device. */
  open(path: string): void {
    this.disconnect();
    this.#connection = new Connection(UnixStream.connect(path));
  }

  /** Ends the connection. */
  disconnect(): void {
    this.#connection?.close();
    this.#channel?.close();
    this.#connection = undefined;
    this.agreed = undefined;
    this.hasTable = false;
  }

  /** Sends messages, one after the other, each after the answer to the one before. */
  async play(...messages: readonly Message[]): Promise<void> {
    for (const message of messages) await this.#exchange(message);
  }

  /** What stops the rings while requests are under way: where they stand is what the device says. */
  stopAnywhere(habits: VmmHabits = this.habits): Message[] {
    return habits.stop(this).map((message) => {
      if (message.request !== Request.GET_VRING_BASE) return message;
      const answer = (payload: DataView) => {
        this.bases[payload.getUint32(0, true)] = payload.getUint32(4, true);
      };
      return { ...message, answer };
    });
  }

  /** The region's description in SET_MEM_TABLE and its like. */
  describe(region: VmmRegion): Uint8Array<ArrayBuffer> {
    const { guestAddress, size } = region;
    return longs(guestAddress, size, BigInt(guestAddress) + this.habits.userOffset, 0);
  }

  /** SET_MEM_TABLE's payload. */
  table(): Uint8Array {
    return joined(longs(this.regions.length), ...this.regions.map((each) => this.describe(each)));
  }

  /** SET_VRING_ADDR's payload. */
  place(index: number, flags = 0): Uint8Array {
    const { driver } = this.rings[index];
    const shift = this.facts.ringShift ?? this.habits.userOffset;
    const [descriptors, used, available] = [
      driver.descriptors,
      driver.deviceArea,
      driver.driverArea,
    ].map((address) => BigInt(address) + shift);
    const logged = BigInt(driver.deviceArea) + (this.facts.ringShift ?? 0n);
    return joined(words(index, flags), longs(descriptors, used, available, logged));
  }

  /** A new channel for the back end's messages: the back end's end. */
  newChannel(): Descriptor {
    const [ours, theirs] = UnixStream.pair();
    this.#channel?.close();
    this.#channel = ours;
    this.#opened.push(theirs);
    return theirs.descriptor;
  }

  /** GET_INFLIGHT_FD's payload of 24 bytes, and the answer to it: a region for each queue. */
  inflight(): readonly [ask: Uint8Array, answer: Uint8Array] {
    const { queues } = this.facts;
    const each = inflightBytes(this.isPacked, RING_SIZE);
    const tail = words(queues | RING_SIZE << 16, 0);
    return [joined(longs(0, 0), tail), joined(longs(queues * each, 0), tail)];
  }

  /** A new dirty log, all of it clear. */
  newLog(): VmmRegion {
    const file = createMemoryFile("vmm-log", LOG_BYTES);
    const mapping = mapMemoryFile(file, 0, LOG_BYTES);
    this.#opened.push(file, mapping);
    this.log = { guestAddress: 0, size: LOG_BYTES, file, mapping };
    return this.log;
  }

  /** Pages that are marked in a dirty log. */
  dirtyPages(log: VmmRegion): number[] {
    return setBits(new Uint8Array(log.mapping.buffer));
  }

  /** SET_DEVICE_STATE_FD to save and CHECK_DEVICE_STATE: the bytes. */
  async save(): Promise<Uint8Array> {
    const [reader, writer] = this.#transferEnds();
    await this.play(this.#transfer(0, writer));
    writer.close();
    const whole: number[] = [];
    const piece = new Uint8Array(65536);
    await until(() => {
      const count = readNow(reader, piece, piece.length);
      if (count > 0) whole.push(...piece.subarray(0, count));
      return count === 0;
    }, "the state is read to its end");
    reader.close();
    await this.play(this.#checked());
    return Uint8Array.from(whole);
  }

  /** SET_DEVICE_STATE_FD to load, and CHECK_DEVICE_STATE. */
  async load(state: Uint8Array): Promise<void> {
    const [reader, writer] = this.#transferEnds();
    await this.play(this.#transfer(1, reader));
    reader.close();
    let at = 0;
    await until(() => {
      const piece = state.slice(at, at + 4096);
      const count = piece.length === 0 ? 0 : writeNow(writer, piece, piece.length);
      at += Math.max(0, count);
      return at === state.length;
    }, "the state is written to its end");
    writer.close();
    await this.play(this.#checked());
  }

  [Symbol.dispose](): void {
    this.disconnect();
    this.#closeRings();
    this.record?.close();
    for (const each of this.#opened) each.close();
  }

  #transferEnds(): [reader: Descriptor, writer: Descriptor] {
    if (this.habits.transfersBy === "pipe") return createPipe();
    const [one, other] = UnixStream.pair();
    return [one.descriptor, other.descriptor];
  }

  #transfer(direction: number, file: Descriptor): Message {
    return {
      request: Request.SET_DEVICE_STATE_FD,
      payload: words(direction, 0),
      files: [file],
      needsReply: this.habits.asksAlways,
      answer: longs(0x100),
    };
  }

  #checked(): Message {
    const needsReply = this.habits.asksAlways;
    return { request: Request.CHECK_DEVICE_STATE, needsReply, answer: longs(0) };
  }

  async #exchange(message: Message): Promise<void> {
    const { request, payload: sent = new Uint8Array(0), files = [], needsReply = false } = message;
    const connection = this.#connection!;
    const name = `${this.habits.name}: ${requestName(request)}`;
    const descriptors = typeof files === "function" ? files() : files;
    connection.send(request, needsReply ? FLAG_NEED_REPLY : 0, sent, descriptors);
    const answer = message.answer ?? (needsReply ? longs(0) : undefined);
    if (answer === undefined) return;
    using poll = new PollSet(1);
    const end = performance.now() + PATIENCE;
    let result = connection.read();
    while (result === "nothing" && performance.now() < end) {
      poll.clear();
      poll.add(connection.stream.descriptor.number);
      await poll.wait(end - performance.now());
      result = connection.read();
    }
    assertEquals(result, "message", name);
    assertEquals([connection.request, connection.flags], [request, FLAG_REPLY | 1], name);
    const payload = connection.payload.slice(0, connection.size);
    if (typeof answer === "function") answer(new DataView(payload.buffer));
    else assertEquals(payload, answer, name);
    if (request === Request.GET_INFLIGHT_FD) {
      this.record?.close();
      this.record = connection.descriptors.shift();
    }
    assertEquals(connection.descriptors.length, 0, name);
  }

  #closeRings(): void {
    for (const ring of this.rings) ring.close();
    this.rings = [];
  }
}
