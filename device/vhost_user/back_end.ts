/**
 * The back end: one session with a front end, from its connection to its end. Each message is one method,
 * in the order of their numbers; {@linkcode BackEnd.onReadable} reads and dispatches them.
 *
 * A message that cannot be done is *refused*: its method returns the reason. A front end that asked for a
 * reply is told and the session goes on; any other could only go wrong from there, so the connection is
 * closed. What breaks the framing always closes it. Either way one log line names message and field.
 *
 * The session never waits for the front end. A reply that finds no room waits, and nothing more is read
 * until it is gone.
 *
 * @module
 */
import { Event, POLLIN, POLLOUT, UnixStream } from "../host/mod.ts";
import { Log } from "../log.ts";
import type { AddressSpace, GuestMemory, Queue } from "../../vring/mod.ts";
import type { ResetKind, VirtioDevice } from "../virtio_device.ts";
import { Connection, ProtocolError } from "./connection.ts";
import { MemoryTable, readRegion } from "./memory_table.ts";
import {
  BackEndRequest,
  CONFIG_HEADER_BYTES,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  MAX_CONFIG,
  MAX_MEMORY_SLOTS,
  MAX_TABLE_REGIONS,
  messageShape,
  ProtocolFeature,
  readU64,
  REGION_BYTES,
  Request,
  requestName,
  RING_INDEX_MASK,
  RING_NO_DESCRIPTOR,
  TransportFeature,
} from "./protocol.ts";
import { isFreshBase, Ring, type RingFeatures } from "./ring.ts";

/** How a back end is made, beyond its device. */
export interface BackEndOptions {
  /** Where log lines go; by default warnings and errors on standard error. */
  readonly log?: Log;
  /**
   * What queue and buffer addresses mean, for a device behind an IOMMU; with it ACCESS_PLATFORM is offered.
   * By default they are guest-physical.
   */
  readonly addressSpace?: (memory: GuestMemory) => AddressSpace;
}

/** Why a message was refused, or nothing. */
type Refusal = string | undefined;

const { LOG_ALL, INDIRECT_DESC, EVENT_IDX, PROTOCOL_FEATURES } = TransportFeature;
const { VERSION_1, ACCESS_PLATFORM, RING_PACKED, IN_ORDER } = TransportFeature;

const OFFERED_LOW = INDIRECT_DESC | EVENT_IDX | PROTOCOL_FEATURES;
const OFFERED_HIGH = VERSION_1;
const OFFERED_PROTOCOL = ProtocolFeature.MQ | ProtocolFeature.REPLY_ACK |
  ProtocolFeature.BACKEND_REQ | ProtocolFeature.CONFIG | ProtocolFeature.RESET_DEVICE |
  ProtocolFeature.CONFIGURE_MEM_SLOTS | ProtocolFeature.STATUS;

const NO_BYTES = new Uint8Array(0);

/** One front end's session with a device. */
export class BackEnd {
  readonly #connection: Connection;
  readonly #device: VirtioDevice;
  readonly #log: Log;
  readonly #table: MemoryTable;
  readonly #space: AddressSpace;
  readonly #rings: Ring[] = [];
  readonly #offeredHigh: number;

  #featuresLow = 0;
  #featuresHigh = 0;
  #protocolFeatures = 0;
  #status = 0;
  /** Messages to the front end. */
  #requests: Connection | undefined;
  /** Whether the config space was read since the last ring stopped: somebody drives the device anew. */
  #configRead = false;
  #open = true;
  #generation = 1;

  /** Begins a session on a connection, which it owns from now on. */
  constructor(stream: UnixStream, device: VirtioDevice, options: BackEndOptions = {}) {
    this.#connection = new Connection(stream);
    this.#device = device;
    this.#log = options.log ?? new Log("warn");
    this.#table = new MemoryTable(device);
    this.#space = options.addressSpace?.(this.#table.memory) ?? this.#table.memory;
    this.#offeredHigh = OFFERED_HIGH | (options.addressSpace === undefined ? 0 : ACCESS_PLATFORM);
    for (let index = 0; index < device.queueCount; index++) this.#rings.push(new Ring(index));
  }

  /** Guest memory as this front end handed it over. */
  get memory(): GuestMemory {
    return this.#table.memory;
  }

  /** Whether the session goes on. */
  get isOpen(): boolean {
    return this.#open;
  }

  /** The connection's descriptor, -1 once closed: call {@linkcode onReadable} when {@linkcode events} occur on it. */
  get descriptor(): number {
    return this.#connection.stream.descriptor.number;
  }

  /** What to poll the connection for: `POLLIN`, or `POLLOUT` while a reply waits for room. */
  get events(): number {
    return this.#connection.hasUnsent ? POLLOUT : POLLIN;
  }

  /** Changes whenever a queue, a kick descriptor or the events may have: look at them anew then. */
  get generation(): number {
    return this.#generation;
  }

  /** A queue that runs, or `undefined`. */
  queue(index: number): Queue | undefined {
    return this.#rings[index]?.queue;
  }

  /** What the driver signals for a running queue; -1 if it does not run or the driver expects to be polled. */
  kickDescriptor(index: number): number {
    const ring = this.#rings[index];
    return ring?.queue === undefined || ring.kick === undefined ? -1 : ring.kick.descriptor.number;
  }

  /** Takes back the signals on a kick descriptor that was ready. */
  drainKick(index: number): void {
    this.#rings[index]?.kick?.drain();
  }

  /** Signals the driver if, after what was published, it wants to be. */
  signal(index: number): void {
    const ring = this.#rings[index];
    if (ring?.queue === undefined || !ring.queue.needsSignal()) return;
    ring.call?.signal();
  }

  /** Stops a queue that reported an error, and tells log and front end. */
  ringFailed(index: number): void {
    const ring = this.#rings[index];
    if (ring?.queue === undefined) return;
    this.#log.warnLimited("ring", `queue ${index} stopped: ${ring.queue.describeError()}`);
    ring.broken = true;
    this.#halt(ring);
    ring.error?.signal();
  }

  /** Tells the front end that the config space has changed, if it has asked to be told. */
  configChanged(): void {
    if (this.#requests?.send(BackEndRequest.CONFIG_CHANGE, 0, NO_BYTES) === false) {
      this.#closeRequests();
    }
  }

  /**
   * Serves every message that is there, and sends what waited.
   *
   * @returns whether the session goes on; if not, everything of it is closed already.
   */
  onReadable(): boolean {
    if (!this.#open) return false;
    if (!this.#connection.flush()) return this.#end("the front end is gone");
    while (this.#open && !this.#connection.hasUnsent) {
      const result = this.#connection.read();
      if (result === "nothing") return true;
      if (result === "closed") return this.#end("the front end has closed the connection");
      if (result instanceof ProtocolError) return this.#violation(result.message);
      this.#serve();
    }
    return this.#open;
  }

  /**
   * Ends the session: queues stop, memory is unmapped, descriptors are closed, the device starts over. Does
   * nothing the second time.
   */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    for (const ring of this.#rings) {
      this.#halt(ring);
      ring.close();
    }
    this.#closeRequests();
    this.#table.clear();
    this.#connection.close();
    this.#generation++;
    this.#device.reset("system");
  }

  /** Serves the message just read. */
  #serve(): void {
    const connection = this.#connection;
    const { request, size } = connection;
    const wantsReply = (connection.flags & FLAG_NEED_REPLY) !== 0 &&
      this.#agreed(ProtocolFeature.REPLY_ACK);
    const shape = messageShape(request);
    const refusal = this.#misfit() ?? this.#dispatch(request);
    this.#generation++;
    if (!this.#open) return;
    this.#log.debug(`${requestName(request)}, ${size} bytes: ${refusal ?? "done"}`);
    if (refusal === undefined) {
      if (wantsReply && shape?.replies === false) this.#replyU64(0);
      return;
    }
    const line = `${requestName(request)} refused: ${refusal}`;
    if (!wantsReply || shape?.replies === true) {
      this.#violation(line);
      return;
    }
    this.#log.warnLimited("refused", line);
    this.#replyU64(1);
  }

  /** What is wrong with the message's form, whatever it says. */
  #misfit(): Refusal {
    const { request, size, flags, descriptors } = this.#connection;
    const shape = messageShape(request);
    if ((flags & FLAG_REPLY) !== 0) return "it is marked as a reply";
    if (shape === undefined) return "this device does not know it";
    if (size < shape.least || size > shape.most) {
      const expected = shape.least === shape.most ? shape.least : `${shape.least} to ${shape.most}`;
      return `its size is ${size}, not ${expected}`;
    }
    if (descriptors.length > shape.descriptors) {
      return `${descriptors.length} descriptors came, at most ${shape.descriptors} belong to it`;
    }
    if (shape.needs !== 0 && !this.#agreed(shape.needs)) {
      return "its protocol feature is not agreed";
    }
    return undefined;
  }

  #dispatch(request: number): Refusal {
    switch (request) {
      case Request.GET_FEATURES:
        return this.#getFeatures();
      case Request.SET_FEATURES:
        return this.#setFeatures();
      case Request.SET_OWNER:
        return this.#setOwner();
      case Request.RESET_OWNER:
        return this.#resetOwner();
      case Request.SET_MEM_TABLE:
        return this.#setMemTable();
      case Request.SET_VRING_NUM:
        return this.#setVringNum();
      case Request.SET_VRING_ADDR:
        return this.#setVringAddr();
      case Request.SET_VRING_BASE:
        return this.#setVringBase();
      case Request.GET_VRING_BASE:
        return this.#getVringBase();
      case Request.SET_VRING_KICK:
        return this.#setVringKick();
      case Request.SET_VRING_CALL:
        return this.#setVringCall();
      case Request.SET_VRING_ERR:
        return this.#setVringErr();
      case Request.GET_PROTOCOL_FEATURES:
        return this.#getProtocolFeatures();
      case Request.SET_PROTOCOL_FEATURES:
        return this.#setProtocolFeatures();
      case Request.GET_QUEUE_NUM:
        return this.#getQueueNum();
      case Request.SET_VRING_ENABLE:
        return this.#setVringEnable();
      case Request.SET_BACKEND_REQ_FD:
        return this.#setBackendReqFd();
      case Request.IOTLB_MSG:
        return this.#iotlbMsg();
      case Request.GET_CONFIG:
        return this.#getConfig();
      case Request.SET_CONFIG:
        return this.#setConfig();
      case Request.RESET_DEVICE:
        return this.#resetDevice();
      case Request.GET_MAX_MEM_SLOTS:
        return this.#getMaxMemSlots();
      case Request.ADD_MEM_REG:
        return this.#addMemReg();
      case Request.REM_MEM_REG:
        return this.#remMemReg();
      case Request.SET_STATUS:
        return this.#setStatus();
      case Request.GET_STATUS:
        return this.#getStatus();
    }
    return "this device does not serve it";
  }

  #getFeatures(): Refusal {
    const low = this.#device.featuresLow | OFFERED_LOW;
    return this.#reply64(low, this.#device.featuresHigh | this.#offeredHigh);
  }

  #setFeatures(): Refusal {
    const { data } = this.#connection;
    const low = data.getUint32(0, true);
    const high = data.getUint32(4, true);
    const foreignLow = low & ~(this.#device.featuresLow | OFFERED_LOW);
    const foreignHigh = high & ~(this.#device.featuresHigh | this.#offeredHigh);
    if (foreignLow !== 0 || foreignHigh !== 0) {
      return `features ${hex64(foreignLow, foreignHigh)} were not on offer`;
    }
    const changesLow = (low ^ this.#featuresLow) & ~LOG_ALL;
    if ((changesLow !== 0 || high !== this.#featuresHigh) && this.#runs()) {
      return "features other than the dirty log cannot change while a queue runs";
    }
    this.#featuresLow = low;
    this.#featuresHigh = high;
    this.#device.featuresAgreed(low & ~(PROTOCOL_FEATURES | LOG_ALL), high);
    // Without the protocol features there is no SET_VRING_ENABLE: rings are enabled from the beginning.
    if ((low & PROTOCOL_FEATURES) === 0) { for (const ring of this.#rings) ring.enabled = true; }
    return this.#startAll();
  }

  #setOwner(): Refusal {
    return undefined;
  }

  #resetOwner(): Refusal {
    for (const ring of this.#rings) {
      ring.enabled = false;
      this.#halt(ring);
    }
    return undefined;
  }

  #setMemTable(): Refusal {
    const { data, size, descriptors } = this.#connection;
    const count = data.getUint32(0, true);
    if (count < 1 || count > MAX_TABLE_REGIONS) return `it has ${count} regions`;
    if (size !== 8 + count * REGION_BYTES) return `its size is ${size} with ${count} regions`;
    if (descriptors.length !== count) {
      return `it has ${count} regions and ${descriptors.length} descriptors`;
    }
    const regions = [];
    for (let i = 0; i < count; i++) regions.push(readRegion(data, 8 + i * REGION_BYTES));
    return this.#table.replace(regions, descriptors) ?? this.#startAll();
  }

  #setVringNum(): Refusal {
    const ring = this.#ringOfState();
    if (typeof ring === "string") return ring;
    const size = this.#connection.data.getUint32(4, true);
    if (ring.queue !== undefined) return `queue ${ring.index} runs`;
    if (size < 1 || size > this.#device.queueSizeMax) {
      return `size ${size} of queue ${ring.index} is not 1 to ${this.#device.queueSizeMax}`;
    }
    ring.size = size;
    return this.#start(ring);
  }

  #setVringAddr(): Refusal {
    const { data } = this.#connection;
    const ring = this.#ringOfState();
    if (typeof ring === "string") return ring;
    ring.addresses = {
      flags: data.getUint32(4, true),
      descriptors: readU64(data, 8),
      used: readU64(data, 16),
      available: readU64(data, 24),
      log: readU64(data, 32),
    };
    return ring.queue === undefined ? this.#start(ring) : this.#run(ring);
  }

  #setVringBase(): Refusal {
    const ring = this.#ringOfState();
    if (typeof ring === "string") return ring;
    if (ring.queue !== undefined) return `queue ${ring.index} runs`;
    const base = this.#connection.data.getUint32(4, true);
    if (!this.#ringFeatures().packed && base > 0xffff) {
      return `index ${base} of queue ${ring.index} is more than 65535`;
    }
    ring.base = base;
    return this.#start(ring);
  }

  #getVringBase(): Refusal {
    const ring = this.#ringOfState();
    if (typeof ring === "string") return ring;
    if (this.#runs()) this.#configRead = false;
    this.#halt(ring);
    if (ring.started) ring.stoppedAt = ring.base;
    ring.started = false;
    ring.broken = false;
    ring.kick?.close();
    ring.kick = undefined;
    return this.#reply64(ring.index, ring.base);
  }

  #setVringKick(): Refusal {
    const ring = this.#ringOfDescriptor();
    if (typeof ring === "string") return ring;
    const event = this.#takeEvent();
    if (typeof event === "string") return event;
    ring.kick?.close();
    ring.kick = event;
    ring.started = true;
    return this.#start(ring);
  }

  #setVringCall(): Refusal {
    const ring = this.#ringOfDescriptor();
    if (typeof ring === "string") return ring;
    const event = this.#takeEvent();
    if (typeof event === "string") return event;
    ring.call?.close();
    ring.call = event;
    return undefined;
  }

  #setVringErr(): Refusal {
    const ring = this.#ringOfDescriptor();
    if (typeof ring === "string") return ring;
    const event = this.#takeEvent();
    if (typeof event === "string") return event;
    ring.error?.close();
    ring.error = event;
    return undefined;
  }

  #getProtocolFeatures(): Refusal {
    return this.#reply64(OFFERED_PROTOCOL, 0);
  }

  #setProtocolFeatures(): Refusal {
    const { data } = this.#connection;
    const low = data.getUint32(0, true);
    const high = data.getUint32(4, true);
    const foreign = low & ~OFFERED_PROTOCOL;
    if (foreign !== 0 || high !== 0) {
      return `protocol features ${hex64(foreign, high)} were not on offer`;
    }
    this.#protocolFeatures = low;
    return undefined;
  }

  #getQueueNum(): Refusal {
    return this.#reply64(this.#device.queueCount, 0);
  }

  #setVringEnable(): Refusal {
    const ring = this.#ringOfState();
    if (typeof ring === "string") return ring;
    const enabled = this.#connection.data.getUint32(4, true);
    if (enabled > 1) return `it is ${enabled} for queue ${ring.index}, neither 0 nor 1`;
    ring.enabled = enabled === 1;
    if (!ring.enabled) this.#halt(ring);
    return this.#start(ring);
  }

  #setBackendReqFd(): Refusal {
    const descriptor = this.#connection.descriptors.shift();
    if (descriptor === undefined) return "its descriptor is missing";
    this.#closeRequests();
    this.#requests = new Connection(new UnixStream(descriptor));
    return undefined;
  }

  /** The front end's own view of I/O addresses: what we translate ourselves, we take from our own tables. */
  #iotlbMsg(): Refusal {
    return undefined;
  }

  #getConfig(): Refusal {
    const { data, size } = this.#connection;
    const offset = data.getUint32(0, true);
    const length = data.getUint32(4, true);
    const flags = data.getUint32(8, true);
    if (!this.#runs()) this.#configRead = true;
    const problem = this.#configRange(offset, length);
    if (
      problem !== undefined ||
      (size !== CONFIG_HEADER_BYTES + length && size !== CONFIG_HEADER_BYTES)
    ) {
      this.#log.warnLimited("config", `GET_CONFIG failed: ${problem ?? `its size is ${size}`}`);
      // An empty reply is how the protocol says that reading failed.
      this.#reply(NO_BYTES);
      return undefined;
    }
    const reply = new Uint8Array(CONFIG_HEADER_BYTES + length);
    const header = new DataView(reply.buffer);
    header.setUint32(0, offset, true);
    header.setUint32(4, length, true);
    header.setUint32(8, flags, true);
    // Front ends that read the largest space there can be get zeros behind ours.
    const there = Math.min(length, Math.max(0, this.#device.configSize - offset));
    if (there > 0) {
      const target = reply.subarray(CONFIG_HEADER_BYTES, CONFIG_HEADER_BYTES + there);
      this.#device.readConfig(target, offset);
    }
    this.#reply(reply);
    return undefined;
  }

  #setConfig(): Refusal {
    const { data, payload, size } = this.#connection;
    const offset = data.getUint32(0, true);
    const length = data.getUint32(4, true);
    const flags = data.getUint32(8, true);
    const problem = this.#configRange(offset, length);
    if (problem !== undefined) return problem;
    if (size !== CONFIG_HEADER_BYTES + length) return `its size is ${size} with ${length} bytes`;
    // 0: written by the driver; 1: a migration's, though some front ends say 1 for the driver.
    if (flags > 1) return `its flags are ${flags}`;
    const there = Math.min(length, Math.max(0, this.#device.configSize - offset));
    if (there > 0) {
      const bytes = payload.slice(CONFIG_HEADER_BYTES, CONFIG_HEADER_BYTES + there);
      this.#device.writeConfig(bytes, offset);
    }
    return undefined;
  }

  #resetDevice(): Refusal {
    this.#status = 0;
    for (const ring of this.#rings) {
      this.#halt(ring);
      ring.enabled = (this.#featuresLow & PROTOCOL_FEATURES) === 0;
      ring.started = false;
      ring.broken = false;
      ring.base = 0;
      ring.kick?.close();
      ring.kick = undefined;
    }
    this.#reset("device");
    return undefined;
  }

  #getMaxMemSlots(): Refusal {
    return this.#reply64(MAX_MEMORY_SLOTS, 0);
  }

  #addMemReg(): Refusal {
    const { data, descriptors } = this.#connection;
    if (descriptors.length !== 1) return "its descriptor is missing";
    return this.#table.add(readRegion(data, 8), descriptors[0]) ?? this.#startAll();
  }

  #remMemReg(): Refusal {
    return this.#table.remove(readRegion(this.#connection.data, 8));
  }

  /** A status of 0 is no reset: QEMU sends it when the machine stops, too. */
  #setStatus(): Refusal {
    this.#status = this.#connection.data.getUint32(0, true);
    return undefined;
  }

  #getStatus(): Refusal {
    return this.#reply64(this.#status, 0);
  }

  #configRange(offset: number, length: number): Refusal {
    return offset + length <= MAX_CONFIG
      ? undefined
      : `${length} bytes from ${offset} are outside the config space of at most ${MAX_CONFIG}`;
  }

  /** The ring that a payload of index u32 and value u32 names. */
  #ringOfState(): Ring | string {
    return this.#ring(this.#connection.data.getUint32(0, true));
  }

  /** The ring that a payload of index, flag and perhaps a descriptor names. */
  #ringOfDescriptor(): Ring | string {
    const { data, descriptors } = this.#connection;
    const low = data.getUint32(0, true);
    const without = (low & RING_NO_DESCRIPTOR) !== 0;
    if (without && descriptors.length > 0) return "a descriptor came where its bit 8 says none";
    if (!without && descriptors.length === 0) return "its descriptor is missing";
    return this.#ring(low & RING_INDEX_MASK);
  }

  #ring(index: number): Ring | string {
    return this.#rings[index] ?? `there is no queue ${index}`;
  }

  /** The event that came along, `undefined` if none did. */
  #takeEvent(): Event | undefined | string {
    const { descriptors } = this.#connection;
    if (descriptors.length === 0) return undefined;
    const event = Event.adopt(descriptors[0]);
    if (event === undefined) return "its descriptor is not an eventfd";
    descriptors.shift();
    return event;
  }

  #agreed(features: number): boolean {
    return (this.#protocolFeatures & features) !== 0;
  }

  #ringFeatures(): RingFeatures {
    return {
      packed: (this.#featuresHigh & RING_PACKED) !== 0,
      eventIndex: (this.#featuresLow & EVENT_IDX) !== 0,
      indirect: (this.#featuresLow & INDIRECT_DESC) !== 0,
      inOrder: (this.#featuresHigh & IN_ORDER) !== 0,
      translated: (this.#featuresHigh & ACCESS_PLATFORM) !== 0,
    };
  }

  #runs(): boolean {
    return this.#rings.some((ring) => ring.queue !== undefined);
  }

  #startAll(): Refusal {
    let refusal: Refusal;
    for (const ring of this.#rings) refusal ??= this.#start(ring);
    return refusal;
  }

  /** Starts a ring that is ready to and does not run; before there is memory, no ring is. */
  #start(ring: Ring): Refusal {
    if (ring.queue !== undefined || !ring.isReady || this.memory.regions.length === 0) {
      return undefined;
    }
    const refusal = this.#run(ring);
    if (refusal !== undefined || ring.queue === undefined) return refusal;
    if (this.#isRestart(ring)) this.#reset("system");
    ring.stoppedAt = undefined;
    this.#device.queueStarted(ring.index, ring.queue);
    return undefined;
  }

  #run(ring: Ring): Refusal {
    const refusal = ring.run(this.#space, this.memory, this.#ringFeatures(), null);
    return refusal === undefined ? undefined : `queue ${ring.index} cannot run: ${refusal}`;
  }

  /**
   * Whether a ring that stopped and starts again belongs to a new life of the device. QEMU announces neither
   * a reboot nor a plain stop; but a stop goes on where it was, while a new driver begins at the beginning
   * with an unused ring, and reads the config space first. A ring that had come to the beginning again by
   * itself (its index has 16 bits) is told from a new one by the latter alone.
   */
  #isRestart(ring: Ring): boolean {
    const { packed } = this.#ringFeatures();
    if (ring.stoppedAt === undefined || !isFreshBase(ring.base, packed)) return false;
    return ring.stoppedAt !== ring.base || this.#configRead;
  }

  #reset(kind: ResetKind): void {
    for (const ring of this.#rings) ring.stoppedAt = undefined;
    this.#configRead = false;
    this.#log.info(kind === "system" ? "the guest has restarted" : "the device was reset");
    this.#device.reset(kind);
  }

  #halt(ring: Ring): void {
    if (ring.queue === undefined) return;
    this.#device.queueStopped(ring.index);
    ring.halt();
    this.#generation++;
  }

  #closeRequests(): void {
    this.#requests?.close();
    this.#requests = undefined;
  }

  #replyU64(value: number): void {
    this.#reply64(value, 0);
  }

  #reply64(low: number, high: number): Refusal {
    const payload = new Uint8Array(8);
    const data = new DataView(payload.buffer);
    data.setUint32(0, low >>> 0, true);
    data.setUint32(4, high >>> 0, true);
    this.#reply(payload);
    return undefined;
  }

  #reply(payload: Uint8Array): void {
    if (!this.#connection.send(this.#connection.request, FLAG_REPLY, payload)) {
      this.#end("the front end is gone");
    }
  }

  #violation(line: string): boolean {
    this.#log.warnLimited("protocol", `${line}; connection closed`);
    this.close();
    return false;
  }

  #end(line: string): boolean {
    this.#log.info(line);
    this.close();
    return false;
  }
}

function hex64(low: number, high: number): string {
  return `0x${((BigInt(high >>> 0) << 32n) | BigInt(low >>> 0)).toString(16)}`;
}
