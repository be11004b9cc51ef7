/**
 * The front end of one device whose rings another process scribbles over. It waits for each answer in calls: what it
 * waits for is done meanwhile.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { Descriptor, Event, UnixStream } from "../../device/host/mod.ts";
import {
  Connection,
  FLAG_NEED_REPLY,
  Request,
  TransportFeature,
} from "../../device/vhost_user/mod.ts";
import { servedMessage } from "../../device/vhost_user/message_table.ts";
import { joined, longs, words } from "../bytes.ts";
import {
  DEVICE_AREA,
  DRIVER_AREA,
  IOVA,
  LOG_BYTES,
  MEMORY,
  queuesOf,
  recordBytes,
  RING_SIZE,
  RING_STEP,
} from "./scribbled_layout.ts";
import { CANARY, CANARY_BYTES, type ScribbledMemory } from "./scribbled_memory.ts";
import { EVERYTHING } from "./vhost_user/raw_peer.ts";

/** Calls within which a message is answered, or something else is done. */
export const PATIENCE = 100_000;
/** In SET_VRING_ADDR: writes to the ring are logged. */
const RING_IS_LOGGED = 1;
/** In SET_VRING_KICK: no descriptor, the ring is looked at. */
const NO_DESCRIPTOR = 0x100;
const { LOG_ALL, INDIRECT_DESC, EVENT_IDX, PROTOCOL_FEATURES } = TransportFeature;
const { VERSION_1, ACCESS_PLATFORM, RING_PACKED, IN_ORDER } = TransportFeature;
/** Features 0–23 are the device's own. */
const OWN_FEATURES = 0xff_ffff;

/** What a front end is made of. */
export interface ScribbledFrontEndOptions {
  readonly memory: ScribbledMemory;
  /** Which session it is: 0 is the IOMMU's. */
  readonly session: number;
  /** Its first ring in memory. */
  readonly firstRing: number;
  /** What the device signals. */
  readonly call: Event;
  /** Serves the device once more. */
  readonly progress: () => void;
}

/** A front end. */
export class ScribbledFrontEnd {
  /** Messages that were refused: rings that could not start. */
  refused = 0;
  readonly #options: ScribbledFrontEndOptions;
  readonly #connection: Connection;

  /** Begins a session on a connection, which it owns. */
  constructor(stream: UnixStream, options: ScribbledFrontEndOptions) {
    this.#connection = new Connection(stream);
    this.#options = options;
  }

  /** How many rings it has. */
  get rings(): number {
    return queuesOf(this.#options.session);
  }

  /** Agrees on features, and hands over memory, the log and the record. Returns whether the session goes on. */
  agree(): boolean {
    const { memory, session } = this.#options;
    const { mode } = memory;
    const offered = this.#ask(Request.GET_FEATURES);
    const protocol = this.#ask(Request.GET_PROTOCOL_FEATURES);
    if (offered === undefined || protocol === undefined) return false;
    const low = INDIRECT_DESC | PROTOCOL_FEATURES | OWN_FEATURES |
      (mode.eventIndex ? EVENT_IDX : 0) | (mode.logs ? LOG_ALL : 0);
    const high = VERSION_1 | ACCESS_PLATFORM | (mode.packed ? RING_PACKED : 0) |
      (mode.inOrder ? IN_ORDER : 0);
    const agreed = words(offered.getUint32(0, true) & low, offered.getUint32(4, true) & high);
    const wanted = words(protocol.getUint32(0, true) & EVERYTHING, 0);
    const files = [memory.file];
    const canary = longs(0, CANARY, CANARY_BYTES, CANARY, 0);
    this.send(Request.SET_PROTOCOL_FEATURES, wanted);
    this.send(Request.SET_FEATURES, agreed);
    this.send(Request.ADD_MEM_REG, longs(0, 0, MEMORY, 0, 0), files);
    this.send(Request.ADD_MEM_REG, canary, [memory.canaryFile]);
    if (mode.logs) {
      this.send(Request.SET_LOG_BASE, longs(LOG_BYTES, memory.logOf(session)), files);
    }
    if (!mode.records) return true;
    for (let ring = 0; ring < this.rings; ring++) memory.clearRecord(session, ring);
    const place = longs(this.rings * recordBytes(mode.packed), memory.recordOf(session));
    const payload = joined(place, words(this.rings | RING_SIZE << 16, 0));
    return this.send(Request.SET_INFLIGHT_FD, payload, files) !== undefined;
  }

  /** Places all rings, and starts them at their beginning. */
  startRings(): void {
    const { memory, firstRing, session, call } = this.#options;
    const { mode } = memory;
    const shift = mode.translated && session > 0 ? IOVA : 0;
    for (let ring = 0; ring < this.rings; ring++) {
      const at = (firstRing + ring) * RING_STEP + shift;
      const places = longs(at, at + DEVICE_AREA, at + DRIVER_AREA, at + DEVICE_AREA);
      const flags = mode.logs ? RING_IS_LOGGED : 0;
      this.send(Request.SET_VRING_NUM, words(ring, RING_SIZE));
      this.send(Request.SET_VRING_ADDR, joined(words(ring, flags), places));
      this.send(Request.SET_VRING_CALL, words(ring, 0), [call.descriptor]);
      this.send(Request.SET_VRING_ENABLE, words(ring, 1));
      this.#kick(ring, this.#freshBase);
    }
  }

  /** Starts a ring anew that has stopped: at its beginning, with a clear record, or where it was. */
  restart(ring: number, fromBeginning: boolean): void {
    const base = this.send(Request.GET_VRING_BASE, words(ring, 0));
    if (base === undefined) return;
    const { memory, session, firstRing } = this.#options;
    if (fromBeginning) {
      memory.clearRing(firstRing + ring);
      if (memory.mode.records) memory.clearRecord(session, ring);
    }
    this.#kick(ring, fromBeginning ? this.#freshBase : base);
  }

  /** Sends a message; the number that it is answered with, or `undefined` if the session has ended. */
  send(
    request: number,
    payload: Uint8Array,
    files: readonly Descriptor[] = [],
  ): number | undefined {
    const reply = this.#ask(request, payload, files);
    if (reply === undefined) return undefined;
    if (request === Request.GET_VRING_BASE) return reply.getUint32(4, true);
    const answer = reply.getUint32(0, true);
    if (!servedMessage(request)!.replies && answer !== 0) this.refused++;
    return answer;
  }

  /** Ends the session from this side. */
  close(): void {
    this.#connection.close();
  }

  get #freshBase(): number {
    return this.#options.memory.mode.packed ? 0x8000_8000 : 0;
  }

  #kick(ring: number, base: number): void {
    this.send(Request.SET_VRING_BASE, words(ring, base));
    this.send(Request.SET_VRING_KICK, longs(ring | NO_DESCRIPTOR));
  }

  #ask(
    request: number,
    payload: Uint8Array = new Uint8Array(0),
    files: readonly Descriptor[] = [],
  ): DataView | undefined {
    const connection = this.#connection;
    const asks = servedMessage(request)!.replies ? 0 : FLAG_NEED_REPLY;
    if (!connection.send(request, asks, payload, files)) return undefined;
    for (let i = 0; i < PATIENCE; i++) {
      this.#options.progress();
      const result = connection.read();
      if (result === "message") {
        assertEquals(connection.request, request);
        return new DataView(connection.payload.slice(0, connection.size).buffer);
      }
      if (result !== "nothing") return undefined;
    }
    throw new Error(`No answer to message ${request} of session ${this.#options.session}`);
  }
}
