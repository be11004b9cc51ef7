/**
 * A machine with an IOMMU, message by message and without a loop: sessions that come and go, a guest on real rings, and
 * snapshots of all of it.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { READ, WRITE } from "../../../pagetable/mod.ts";
import { EndpointMemory } from "../../../device/endpoint/endpoint_memory.ts";
import {
  createMemoryFile,
  createPipe,
  type Descriptor,
  mapMemoryFile,
  readNow,
  type SharedMemory,
  UnixStream,
  WOULD_BLOCK,
  writeNow,
} from "../../../device/host/mod.ts";
import { type DeviceOptions, IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { Log } from "../../../device/log.ts";
import { BackEnd, Connection, FLAG_NEED_REPLY, Request } from "../../../device/vhost_user/mod.ts";
import { Chain, inflightBytes } from "../../../vring/mod.ts";
import { joined, longs, words } from "../../bytes.ts";
import { CopyableDriver, RING_SIZE } from "./copyable_driver.ts";
import { EVERYTHING } from "./raw_peer.ts";

/** Bytes of guest memory. */
export const MEMORY = 0x8000;
const RINGS = [0, 0x1000];
const READABLE = 0x4000;
const WRITABLE = 0x5000;
const EVENT = 0x6000;
const ANSWER_MAX = 128;
const REPORT = 24;
/** Features 0–31: the device's own and the protocol's. 32–63: VERSION_1, and RING_PACKED. */
const PROTOCOL = 0x4000_0000;
const SPLIT = 0b1;
const PACKED = 0b101;
const BYPASS_BYTE = 36;
const NO_DESCRIPTOR = 0x100;

/** The guest at some moment, and what belongs to it. */
export interface Snapshot {
  readonly state: Uint8Array<ArrayBuffer>;
  readonly memory: Uint8Array;
  readonly drivers: readonly CopyableDriver[];
  readonly bases: readonly number[];
}

/** A machine. */
export class IommuMachine implements Disposable {
  /** What the machine's sessions are with; another one after a move. */
  device: IommuDevice;
  /** Log lines so far. */
  readonly lines: string[] = [];
  readonly isPacked: boolean;
  readonly #options: DeviceOptions;
  readonly #file: Descriptor;
  readonly #mapping: SharedMemory;
  readonly #bytes: Uint8Array;
  readonly #data: DataView;
  #drivers: CopyableDriver[] = [];
  #backEnd: BackEnd | undefined;
  #connection: Connection | undefined;

  /** A device, and a guest that has not begun. */
  constructor(options: DeviceOptions, isPacked: boolean) {
    this.#options = options;
    this.isPacked = isPacked;
    this.device = new IommuDevice(options);
    this.#file = createMemoryFile("guest-memory", MEMORY);
    this.#mapping = mapMemoryFile(this.#file, 0, MEMORY);
    this.#bytes = new Uint8Array(this.#mapping.buffer);
    this.#data = new DataView(this.#mapping.buffer);
    this.newDriver();
  }

  /** A machine whose guest has begun. */
  static start(options: DeviceOptions, isPacked: boolean): IommuMachine {
    const machine = new IommuMachine(options, isPacked);
    machine.connect();
    machine.addMemory();
    machine.readConfig();
    machine.startRings();
    return machine;
  }

  /** Log lines of level warn. */
  get warnings(): readonly string[] {
    return this.lines.filter((line) => line.startsWith("viommu: warn: "));
  }

  /** Guest memory, a copy. */
  get memory(): Uint8Array {
    return this.#bytes.slice();
  }

  /** The guest's driver begins anew, on rings that were not used. */
  newDriver(): void {
    this.#bytes.fill(0, 0, READABLE);
    this.#drivers = RINGS.map((at) => new CopyableDriver(this.#data, at, this.isPacked));
  }

  /** Begins a session; features are agreed. */
  connect(): void {
    const [one, other] = UnixStream.pair();
    const log = new Log("info", (line) => this.lines.push(line));
    this.#backEnd = new BackEnd(one, this.device, { log });
    this.#connection = new Connection(other);
    this.#send(Request.SET_PROTOCOL_FEATURES, words(EVERYTHING, 0));
    const low = this.device.featuresLow | PROTOCOL;
    this.#send(Request.SET_FEATURES, words(low, this.isPacked ? PACKED : SPLIT));
  }

  /** Ends the session from the front end's side. */
  disconnect(): void {
    this.#connection?.close();
    this.#backEnd?.onReadable();
    assertEquals(this.#backEnd?.isOpen ?? false, false);
    this.#connection = undefined;
    this.#backEnd = undefined;
  }

  /** Hands guest memory over. */
  addMemory(): void {
    assertEquals(
      this.acknowledged(Request.ADD_MEM_REG, longs(0, 0, MEMORY, 0, 0), [this.#file]),
      0,
    );
  }

  /** Gives the session a record of requests in flight, all of it clear; the front end's mapping of it. */
  keepRecord(): SharedMemory {
    const each = inflightBytes(this.isPacked, RING_SIZE);
    const bytes = RINGS.length * each;
    const file = createMemoryFile("inflight", bytes);
    const payload = joined(longs(bytes, 0), words(RINGS.length | RING_SIZE << 16, 0));
    assertEquals(this.acknowledged(Request.SET_INFLIGHT_FD, payload, [file]), 0);
    const mapping = mapMemoryFile(file, 0, bytes);
    file.close();
    return mapping;
  }

  /** Takes guest memory away. */
  removeMemory(): void {
    assertEquals(this.acknowledged(Request.REM_MEM_REG, longs(0, 0, MEMORY, 0, 0)), 0);
  }

  /** Starts the rings; 0 if both run. */
  startRings(bases: readonly number[] = this.#drivers.map(({ freshBase }) => freshBase)): number {
    return this.startRing(0, bases[0]) + this.startRing(1, bases[1]);
  }

  /** Starts rings as QEMU does, which disables them at a stop and describes all before it enables the first; 0 if both run. */
  startRingsDescribed(bases = this.#drivers.map(({ freshBase }) => freshBase)): number {
    RINGS.forEach((_, index) => this.#send(Request.SET_VRING_ENABLE, words(index, 0)));
    RINGS.forEach((_, index) => this.#describeRing(index, bases[index]));
    return this.#enableRing(0) + this.#enableRing(1);
  }

  /** Starts a ring; 0 if it runs. */
  startRing(index: number, base: number = this.#drivers[index].freshBase): number {
    this.#describeRing(index, base);
    return this.#enableRing(index);
  }

  #describeRing(index: number, base: number): void {
    this.#send(Request.SET_VRING_NUM, words(index, RING_SIZE));
    this.#send(Request.SET_VRING_BASE, words(index, base));
    const places = longs(...this.#drivers[index].places, 0);
    this.#send(Request.SET_VRING_ADDR, joined(words(index, 0), places));
    this.#send(Request.SET_VRING_KICK, longs(index | NO_DESCRIPTOR));
  }

  #enableRing(index: number): number {
    const status = this.acknowledged(Request.SET_VRING_ENABLE, words(index, 1));
    assertEquals(this.#backEnd?.queue(index) !== undefined, status === 0);
    return status;
  }

  /** Stops the rings and gives their bases. */
  stopRings(): number[] {
    return RINGS.map((_, index) =>
      this.#ask(Request.GET_VRING_BASE, words(index, 0)).getUint32(4, true)
    );
  }

  /** RESET_DEVICE. */
  resetDevice(): void {
    assertEquals(this.acknowledged(Request.RESET_DEVICE, new Uint8Array(0)), 0);
  }

  /** The bypass byte as the guest reads it. */
  readConfig(): number {
    return this.#ask(Request.GET_CONFIG, joined(words(0, 40, 0), new Uint8Array(40)))
      .getUint8(12 + BYPASS_BYTE);
  }

  /** The guest writes the bypass byte. */
  writeBypass(value: number): void {
    const payload = joined(words(BYPASS_BYTE, 1, 0), Uint8Array.of(value));
    assertEquals(this.acknowledged(Request.SET_CONFIG, payload), 0);
  }

  /** Sends a request of the guest; its status, or -1 for an answer without one. */
  request(bytes: Uint8Array): number {
    this.#bytes.set(bytes, READABLE);
    this.#bytes.fill(0xee, WRITABLE, WRITABLE + ANSWER_MAX);
    const room = bytes[0] === 5 ? ANSWER_MAX : 4;
    const [driver] = this.#drivers;
    driver.put([
      { address: READABLE, length: bytes.length, isWritable: false },
      { address: WRITABLE, length: room, isWritable: true },
    ]);
    this.device.service(0, this.#backEnd!.queue(0)!, 1);
    const used = driver.reap();
    return used < 4 ? -1 : this.#bytes[WRITABLE + used - 4];
  }

  /** The guest sends a request, which the device takes and does not answer. */
  leaveInFlight(bytes: Uint8Array): void {
    this.#bytes.set(bytes, READABLE);
    this.#drivers[0].put([
      { address: READABLE, length: bytes.length, isWritable: false },
      { address: WRITABLE, length: 4, isWritable: true },
    ]);
    assertEquals(this.#backEnd!.queue(0)!.next(new Chain()), true);
  }

  /** An access of an endpoint that reports its fault: where it leads, or -1. */
  access(endpoint: number, page: number, access: number): number {
    const memory = new EndpointMemory(this.device, endpoint, this.device.memory);
    const found = memory.resolve(page * 4096 + 8, 8, access === WRITE);
    const at = memory.offset;
    memory.close();
    return found === 0 ? -1 : at;
  }

  /** The guest gives a buffer for a report if the device has none; the next report, if one has come. */
  takeReport(offersBuffer: boolean): readonly number[] | undefined {
    const driver = this.#drivers[1];
    if (offersBuffer && !driver.isBusy) {
      driver.put([{ address: EVENT, length: REPORT, isWritable: true }]);
    }
    this.device.service(1, this.#backEnd!.queue(1)!, 8);
    return driver.reap() < 0 ? undefined : [...this.#bytes.slice(EVENT, EVENT + REPORT)];
  }

  /** What some endpoints reach, for reading and for writing: `page→frame` or why not. */
  reached(endpoints: readonly number[], pages: number): readonly string[] {
    return endpoints.flatMap((endpoint) =>
      Array.from({ length: pages }, (_, page) => page).flatMap((page) =>
        [READ, WRITE].map((access) => {
          const walk = this.device.walk(endpoint, page, access);
          const where = walk.ok ? `${walk.frame} ${walk.permission}` : walk.faultName;
          return `${endpoint}: ${page} ${access} → ${where}`;
        })
      )
    );
  }

  /**
   * The saved state of the device, whose rings have stopped.
   *
   * @param meanwhile Is called once the transfer has begun.
   */
  save(meanwhile: () => void = () => {}): Uint8Array<ArrayBuffer> {
    const [reader, writer] = createPipe();
    try {
      const reply = this.#ask(Request.SET_DEVICE_STATE_FD, words(0, 0), [writer]);
      assertEquals(reply.getUint32(0, true), 0x100);
      writer.close();
      meanwhile();
      const bytes: number[] = [];
      const piece = new Uint8Array(65536);
      for (let count = 1; count !== 0;) {
        count = readNow(reader, piece, piece.length);
        for (let i = 0; i < count; i++) bytes.push(piece[i]);
        if (count < 0) this.#backEnd!.onReadable();
      }
      assertEquals(this.#ask(Request.CHECK_DEVICE_STATE).getUint32(0, true), 0);
      return Uint8Array.from(bytes);
    } finally {
      reader.close();
    }
  }

  /**
   * Loads a state, as far as the device takes it; what CHECK_DEVICE_STATE answers.
   *
   * @param meanwhile Is called before the last byte is sent.
   * @param behind Is called when everything is sent, and before that is checked.
   */
  load(
    state: Uint8Array<ArrayBuffer>,
    meanwhile: () => void = () => {},
    behind: () => void = () => {},
  ): number {
    const [reader, writer] = createPipe();
    const reply = this.#ask(Request.SET_DEVICE_STATE_FD, words(1, 0), [reader]);
    assertEquals(reply.getUint32(0, true), 0x100);
    reader.close();
    for (let at = 0; at < state.length;) {
      const piece = state.slice(at, Math.min(at + 65536, Math.max(at + 1, state.length - 1)));
      if (at + piece.length === state.length) meanwhile();
      const count = writeNow(writer, piece, piece.length);
      if (count > 0) at += count;
      else if (count === WOULD_BLOCK) this.#backEnd!.onReadable();
      else break;
    }
    writer.close();
    behind();
    return this.#ask(Request.CHECK_DEVICE_STATE).getUint32(0, true);
  }

  /** Stops the rings and copies everything; {@linkcode startRings} with the bases goes on. */
  snapshot(): Snapshot {
    const bases = this.stopRings();
    const state = this.save();
    const memory = this.memory;
    const drivers = this.#drivers.map((driver) => driver.copy(this.#data));
    return { state, memory, drivers, bases };
  }

  /** The guest's own part of a snapshot comes back. The rings have stopped. */
  revert({ memory, drivers }: Snapshot): void {
    this.#bytes.set(memory);
    this.#drivers = drivers.map((driver) => driver.copy(this.#data));
  }

  /** Another process takes over: the device is another, without a session. */
  replaceDevice(): void {
    this.disconnect();
    this.device.close();
    this.device = new IommuDevice(this.#options);
  }

  /** Sends a message that asks for a reply: 0 done, 1 refused. */
  acknowledged(
    request: number,
    payload: Uint8Array,
    descriptors: readonly Descriptor[] = [],
  ): number {
    return this.#ask(request, payload, descriptors, FLAG_NEED_REPLY).getUint32(0, true);
  }

  /** Ends everything; throws if the device leaked something. */
  [Symbol.dispose](): void {
    this.disconnect();
    this.device.close();
    this.#mapping.close();
    this.#file.close();
  }

  #send(request: number, payload: Uint8Array): void {
    this.#connection!.send(request, 0, payload);
    assertEquals(this.#backEnd!.onReadable(), true, "the session goes on");
  }

  #ask(
    request: number,
    payload: Uint8Array = new Uint8Array(0),
    descriptors: readonly Descriptor[] = [],
    flags = 0,
  ): DataView {
    this.#connection!.send(request, flags, payload, descriptors);
    this.#backEnd!.onReadable();
    assertEquals(this.#connection!.read(), "message");
    return new DataView(this.#connection!.payload.slice(0, this.#connection!.size).buffer);
  }
}
