/**
 * A back end that does anything: it answers messages rightly or not, and writes into the memory that it was given
 * whatever it likes. What it does is determined by a seed.
 *
 * Everything happens in calls, so that ten thousand of them take seconds.
 *
 * @module
 */
import { libc } from "../../../../device/host/libc.ts";
import { SharedMemory, type UnixStream } from "../../../../device/host/mod.ts";
import { type Descriptor, Event } from "../../../../device/host/mod.ts";
import {
  Connection,
  FLAG_REPLY,
  ProtocolFeature,
  Request,
} from "../../../../device/vhost_user/mod.ts";
import { readU64 } from "../../../../device/vhost_user/protocol.ts";

/** A ring as SET_VRING_ADDR has it: indices in the memory. */
interface Ring {
  size: number;
  used: number;
  available: number;
  descriptors: number;
  /** Used elements that it has written. */
  usedIndex: number;
  /** Available elements that it has taken. */
  takenIndex: number;
  call: Event | undefined;
  kick: Event | undefined;
}

/** Numbers from a seed. */
export class Chance {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** A number from 0 to `below` - 1. */
  below(below: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  }

  /** Whether one of so many is drawn. */
  oneIn(many: number): boolean {
    return this.below(many) === 0;
  }
}

/** One session. */
export class HostileBackEnd implements Disposable {
  readonly #connection: Connection;
  readonly #chance: Chance;
  readonly #rings = new Map<number, Ring>();
  /** One message in so many is answered wrongly. */
  readonly #lies: number;
  /** One thing in so many that it does with its memory is against the rules. */
  readonly #breaks: number;
  #memory: SharedMemory | undefined;
  #userAddress = 0;
  #guestAddress = 0;
  #isOpen = true;
  /** Bytes looked for in its memory, and whether they were found. */
  readonly #canary: Uint8Array;
  /** Whether the canary was ever in its memory. */
  sawCanary = false;

  constructor(stream: UnixStream, chance: Chance, canary: Uint8Array) {
    this.#connection = new Connection(stream);
    this.#chance = chance;
    this.#canary = canary;
    this.#lies = [10, 500, 500][chance.below(3)];
    this.#breaks = [2, 20, 200][chance.below(3)];
  }

  /** Whether it is still connected. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** Whether it has memory and a ring. */
  get hasRing(): boolean {
    return this.#memory !== undefined && this.#rings.size > 0;
  }

  /** Serves messages, then does something. */
  step(): void {
    for (let i = 0; i < 32 && this.#isOpen; i++) {
      const result = this.#connection.read();
      if (result === "nothing") break;
      if (result !== "message") this[Symbol.dispose]();
      else this.#serve();
      this.#closeReceived();
    }
    if (!this.#isOpen) return;
    if (this.#chance.oneIn(400)) this[Symbol.dispose]();
    else if (this.#chance.oneIn(200)) this.#say();
    // Several things at once: a session ends as often for what it does, in fewer turns.
    for (let i = 1 + this.#chance.below(5); i > 0 && this.hasRing; i--) this.#touch();
  }

  /** Looks through all its memory. */
  look(): void {
    if (this.#memory === undefined || this.sawCanary) return;
    const bytes = new Uint8Array(this.#memory.buffer);
    let at = bytes.indexOf(this.#canary[0]);
    while (at >= 0 && !this.sawCanary) {
      this.sawCanary = this.#canary.every((byte, i) => bytes[at + i] === byte);
      at = bytes.indexOf(this.#canary[0], at + 1);
    }
  }

  [Symbol.dispose](): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#closeReceived();
    // What is unread in it is the relay's, too: closing it on another thread would only take longer.
    libc().close(this.#connection.stream.descriptor.take());
    for (const ring of this.#rings.values()) {
      ring.call?.close();
      ring.kick?.close();
    }
    this.#memory?.close();
    this.#memory = undefined;
  }

  /** Closes what came with the last message and was not taken. It is all of the relay's making, so none of it waits. */
  #closeReceived(): void {
    for (const each of this.#connection.descriptors.splice(0)) libc().close(each.take());
  }

  /** Sends a reply that was not asked for. */
  #say(): void {
    const payload = new Uint8Array(this.#chance.below(64));
    for (let i = 0; i < payload.length; i++) payload[i] = this.#chance.below(256);
    this.#connection.send(this.#chance.below(50), this.#chance.below(16) & ~3, payload);
  }

  #serve(): void {
    const { request, data, size, flags, descriptors, payload } = this.#connection;
    const chance = this.#chance;
    if (chance.oneIn(this.#lies * 4)) return this.#say();
    switch (request) {
      case Request.GET_FEATURES:
        return this.#reply(request, 0x7000_0000 | chance.below(256), chance.oneIn(50) ? 0 : 1);
      case Request.GET_PROTOCOL_FEATURES:
        // MQ, REPLY_ACK, BACKEND_REQ, RESET_DEVICE, each or not; and more. CONFIG nearly always: where the first back end
        // had it, one without is refused at once.
        return this.#reply(
          request,
          chance.below(1 << 22) | (chance.oneIn(32) ? 0 : ProtocolFeature.CONFIG),
          0,
        );
      case Request.GET_QUEUE_NUM:
        return this.#reply(request, chance.oneIn(20) ? chance.below(1000) : 2, 0);
      case Request.GET_VRING_BASE:
        return this.#reply(request, data.getUint32(0, true), chance.below(65536));
      case Request.GET_CONFIG: {
        const length = data.getUint32(4, true);
        const room = chance.oneIn(this.#lies) ? chance.below(400) : length <= 24 ? 12 + length : 0;
        return void this.#connection.send(request, FLAG_REPLY, payload.slice(0, room));
      }
      case Request.SET_MEM_TABLE:
        this.#setMemory(data, descriptors);
        break;
      case Request.SET_VRING_NUM:
        this.#ring(data).size = data.getUint32(4, true);
        break;
      case Request.SET_VRING_ADDR: {
        const ring = this.#ring(data);
        ring.descriptors = readU64(data, 8) - this.#userAddress;
        ring.used = readU64(data, 16) - this.#userAddress;
        ring.available = readU64(data, 24) - this.#userAddress;
        ring.usedIndex = 0;
        ring.takenIndex = 0;
        break;
      }
      case Request.SET_VRING_CALL:
      case Request.SET_VRING_KICK: {
        const ring = this.#ring(data);
        const event = Event.adopt(descriptors.shift()!)!;
        if (request === Request.SET_VRING_CALL) {
          ring.call?.close();
          ring.call = event;
        } else {
          ring.kick?.close();
          ring.kick = event;
        }
        break;
      }
    }
    if ((flags & 8) !== 0 && size >= 0) this.#reply(request, chance.oneIn(this.#lies) ? 1 : 0, 0);
  }

  #reply(request: number, low: number, high: number): void {
    const chance = this.#chance;
    const length = chance.oneIn(this.#lies * 8) ? chance.below(64) : 8;
    const payload = new Uint8Array(Math.max(8, length));
    const data = new DataView(payload.buffer);
    data.setUint32(0, low >>> 0, true);
    data.setUint32(4, high >>> 0, true);
    const number = chance.oneIn(this.#lies * 8) ? chance.below(50) : request;
    this.#connection.send(number, FLAG_REPLY, payload.subarray(0, length));
  }

  #setMemory(data: DataView, descriptors: readonly Descriptor[]): void {
    const memory = SharedMemory.map(descriptors[0], readU64(data, 32), readU64(data, 16));
    if (typeof memory === "string") throw new Error(memory);
    this.#memory?.close();
    this.#memory = memory;
    this.#guestAddress = readU64(data, 8);
    this.#userAddress = readU64(data, 24);
  }

  #ring(data: DataView): Ring {
    const index = data.getUint32(0, true) & 0xff;
    let ring = this.#rings.get(index);
    if (ring === undefined) {
      ring = {
        size: 0,
        used: 0,
        available: 0,
        descriptors: 0,
        usedIndex: 0,
        takenIndex: 0,
        call: undefined,
        kick: undefined,
      };
      this.#rings.set(index, ring);
    }
    return ring;
  }

  /** Does something with its memory. */
  #touch(): void {
    const chance = this.#chance;
    const rings = [...this.#rings.values()].filter((ring) => ring.size > 0 && ring.used > 0);
    if (rings.length === 0) return;
    const ring = rings[chance.below(rings.length)];
    const data = new DataView(this.#memory!.buffer);
    const bytes = new Uint8Array(this.#memory!.buffer);
    switch (chance.oneIn(this.#breaks) ? 1 + chance.below(7) : 0) {
      case 0:
        this.#beHonest(ring, data, bytes);
        break;
      case 1: // An id that may be anything.
        this.#use(
          ring,
          data,
          chance.below(2) === 0 ? chance.below(ring.size) : chance.below(2 ** 31),
          0,
        );
        break;
      case 2: // An index that jumps.
        data.setUint16(ring.used + 2, chance.below(65536), true);
        break;
      case 3: // The same one twice.
        this.#use(ring, data, 0, 1);
        this.#use(ring, data, 0, 1);
        break;
      case 4: { // Rubbish over the whole ring.
        const length = chance.below(4096);
        for (let i = 0; i < length; i++) bytes[ring.descriptors + i] = chance.below(256);
        break;
      }
      case 5: // A length beyond every buffer.
        this.#use(ring, data, chance.below(ring.size), 2 ** 32 - 1 - chance.below(100));
        break;
      case 6: // Wishes for notifications.
        data.setUint16(ring.used, chance.below(65536), true);
        data.setUint16(ring.used + 4 + 8 * ring.size, chance.below(65536), true);
        break;
      case 7: { // Rubbish over the buffers.
        const from = chance.below(bytes.length);
        bytes.fill(chance.below(256), from, from + chance.below(8192));
        break;
      }
    }
    if (chance.oneIn(3)) ring.call?.signal();
  }

  /** Uses what is available, as a back end should: each buffer filled with a byte. */
  #beHonest(ring: Ring, data: DataView, bytes: Uint8Array): void {
    const available = data.getUint16(ring.available + 2, true);
    for (let i = 0; i < 8 && ring.takenIndex !== available; i++) {
      const slot = ring.takenIndex % ring.size;
      const head = data.getUint16(ring.available + 4 + 2 * slot, true) % ring.size;
      ring.takenIndex = (ring.takenIndex + 1) & 0xffff;
      this.#use(ring, data, head, this.#fill(ring.descriptors + 16 * head, data, bytes));
    }
    ring.call?.signal();
  }

  /** Fills the first writable buffer of a chain. Returns how many bytes that were. */
  #fill(at: number, data: DataView, bytes: Uint8Array): number {
    const flags = data.getUint16(at + 12, true);
    const address = readU64(data, at) - this.#guestAddress;
    const length = data.getUint32(at + 8, true);
    if (address < 0 || address + length > bytes.length) return 0;
    if ((flags & 4) !== 0) {
      // The table's descriptors, of which the last is the writable one.
      return length >= 32 ? this.#fill(address + 16, data, bytes) : 0;
    }
    if ((flags & 2) === 0) return 0;
    bytes.fill(0x77, address, address + length);
    return length;
  }

  #use(ring: Ring, data: DataView, id: number, length: number): void {
    const at = ring.used + 4 + 8 * (ring.usedIndex % ring.size);
    data.setUint32(at, id >>> 0, true);
    data.setUint32(at + 4, length >>> 0, true);
    ring.usedIndex = (ring.usedIndex + 1) & 0xffff;
    data.setUint16(ring.used + 2, ring.usedIndex, true);
  }
}
