/**
 * A back end that does what its test says: on a real socket, with an IOTLB as DPDK's, which is filled by UPDATE, emptied by
 * INVALIDATE, and keeps nothing else.
 *
 * @module
 */
import {
  createMemoryFile,
  type Descriptor,
  PollSet,
  type UnixListener,
  UnixStream,
} from "../../../../device/host/mod.ts";
import {
  Connection,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  Request,
} from "../../../../device/vhost_user/mod.ts";
import { inflightBytes } from "../../../../vring/mod.ts";
import { words } from "../../../bytes.ts";

/** A message that came, and what came with it. */
export interface Received {
  readonly request: number;
  readonly flags: number;
  readonly payload: DataView;
  readonly descriptors: number;
}

/** An entry of the IOTLB, in bytes. */
export interface Entry {
  readonly iova: number;
  readonly size: number;
  readonly user: bigint;
  readonly permission: number;
}

/** How it answers IOTLB messages: at once, when the test says so, with a refusal, or never. */
export type Manner = "at once" | "when told" | "refusing" | "silent";

const UPDATE = 2;
const INVALIDATE = 3;
const MISS = 1;
const ACCESS_FAIL = 4;
/** Bits 30, 26 (LOG_ALL) and 0 to be seen in a reply, VERSION_1 and ACCESS_PLATFORM. */
export const SCRIPTED_FEATURES = [0x4400_0001, 3] as const;

/** One end of the proxy. */
export class ScriptedBackEnd implements Disposable {
  /** All messages so far but those about I/O addresses. */
  readonly messages: Received[] = [];
  /** What it was told about I/O addresses: `update IOVA+SIZE`, `invalidate IOVA+SIZE`, in hexadecimal. */
  readonly told: string[] = [];
  /** The IOTLB. */
  readonly entries: Entry[] = [];
  /** How IOTLB messages are answered. */
  manner: Manner = "at once";
  /** Acknowledgements that are owed. */
  owed = 0;
  /** Requests that are not answered by itself. */
  readonly unanswered: Set<number> = new Set();
  /** Protocol features it offers: MQ, REPLY_ACK, BACKEND_REQ. */
  offers = 0b101001;
  /** The config space; GET_CONFIG that is not wholly inside gets an empty answer, as from the rust-vmm crates. */
  config: Uint8Array = new Uint8Array(0);
  /** Messages to the front end, once there is a channel. */
  channel: Connection | undefined;
  readonly connection: Connection;
  readonly #poll = new PollSet(2);
  readonly #done: Promise<void>;

  constructor(stream: UnixStream) {
    this.connection = new Connection(stream);
    this.#done = this.#run();
  }

  /** Waits at a path for the proxy to connect. */
  static async accept(listener: UnixListener): Promise<ScriptedBackEnd> {
    using poll = new PollSet(1);
    poll.add(listener.descriptor.number);
    while (true) {
      await poll.wait(5000);
      const stream = listener.accept();
      if (stream !== undefined) return new ScriptedBackEnd(stream);
    }
  }

  /** Whether the connection is open on this side. */
  get isOpen(): boolean {
    return this.connection.stream.descriptor.isOpen;
  }

  /** Ends when the other side has closed the connection. */
  get closed(): Promise<void> {
    return this.#done;
  }

  /** Forgets what it was told so far, and gives it. */
  takeTold(): string[] {
    return this.told.splice(0);
  }

  /** Acknowledges what is owed, or so many of it. */
  acknowledge(count: number = this.owed, status = 0): void {
    for (let i = 0; i < count; i++) {
      const payload = new Uint8Array(8);
      payload[0] = status;
      this.connection.send(Request.IOTLB_MSG, FLAG_REPLY, payload);
    }
    this.owed -= Math.min(count, this.owed);
  }

  /** Asks for a translation. */
  miss(iova: number, permission: number, flags = 0): void {
    this.#say(MISS, iova, permission, flags);
  }

  /** Waits until what it said on its channel has been read: says something that changes nothing and gets a reply. */
  async asked(): Promise<void> {
    const channel = this.channel!;
    this.#say(ACCESS_FAIL, 0, 0, FLAG_NEED_REPLY);
    using poll = new PollSet(1);
    poll.add(channel.stream.descriptor.number);
    while (channel.read() === "nothing") await poll.wait(1000);
  }

  #say(type: number, iova: number, permission: number, flags: number): void {
    const payload = new Uint8Array(32);
    const data = new DataView(payload.buffer);
    data.setBigUint64(0, BigInt(iova), true);
    data.setUint8(24, permission);
    data.setUint8(25, type);
    this.channel!.send(1, flags, payload);
  }

  /** The user address of a byte as the IOTLB has it, with that permission; undefined if it has none. */
  translate(iova: number, permission: number): number | undefined {
    const entry = this.entries.find((each) =>
      iova >= each.iova && iova < each.iova + each.size && (each.permission & permission) !== 0
    );
    return entry === undefined ? undefined : Number(entry.user) + iova - entry.iova;
  }

  /** As {@linkcode translate}, with all 64 bits. */
  userAddressOf(iova: number, permission: number): bigint | undefined {
    const entry = this.entries.find((each) =>
      iova >= each.iova && iova < each.iova + each.size && (each.permission & permission) !== 0
    );
    return entry === undefined ? undefined : entry.user + BigInt(iova - entry.iova);
  }

  /** Replies to a message. */
  reply(request: number, payload: Uint8Array, descriptors: readonly Descriptor[] = []): void {
    this.connection.send(request, FLAG_REPLY, payload, descriptors);
  }

  /** Ends it from this side. */
  [Symbol.dispose](): void {
    this.channel?.close();
    this.connection.close();
    this.#poll.wake();
  }

  async #run(): Promise<void> {
    const poll = this.#poll;
    while (this.isOpen) {
      poll.clear();
      poll.add(this.connection.stream.descriptor.number);
      poll.add(this.channel?.stream.descriptor.number ?? -1);
      await poll.wait();
      while (this.isOpen) {
        const result = this.connection.read();
        if (result === "nothing") break;
        if (result !== "message") {
          this.connection.close();
          break;
        }
        this.#serve();
      }
    }
    this.channel?.close();
    poll.close();
  }

  #serve(): void {
    const { request, flags, size, payload, descriptors } = this.connection;
    const copy = new DataView(payload.slice(0, size).buffer);
    if (request === Request.IOTLB_MSG) return this.#serveIotlb(copy, flags);
    this.messages.push({ request, flags, payload: copy, descriptors: descriptors.length });
    if (request === Request.SET_BACKEND_REQ_FD) {
      this.channel?.close();
      this.channel = new Connection(new UnixStream(descriptors.shift()!));
    }
    if (this.unanswered.has(request)) return;
    if (request === Request.GET_FEATURES) this.reply(request, words(...SCRIPTED_FEATURES));
    else if (request === Request.GET_PROTOCOL_FEATURES) this.reply(request, words(this.offers, 0));
    else if (request === Request.GET_CONFIG) this.reply(request, this.#configAnswer(copy));
    else if (request === Request.GET_QUEUE_NUM) this.reply(request, words(2, 0));
    else if (request === Request.GET_MAX_MEM_SLOTS) this.reply(request, words(512, 0));
    else if (request === Request.SET_LOG_BASE) this.reply(request, payload.slice(0, size));
    else if (request === Request.GET_INFLIGHT_FD) this.#replyRecord(copy);
    else if (request === Request.GET_VRING_BASE) {
      const index = copy.getUint32(0, true);
      this.reply(request, words(index, this.#lastOf(Request.SET_VRING_BASE, index)));
    } else if (request === Request.GET_STATUS) {
      const status = this.messages.findLast((each) => each.request === Request.SET_STATUS);
      this.reply(request, words(status?.payload.getUint32(0, true) ?? 0, 0));
    } else if ((flags & FLAG_NEED_REPLY) !== 0) this.reply(request, words(0, 0));
  }

  /** What the last message of a kind about a ring said. */
  #lastOf(request: number, index: number): number {
    const last = this.messages.findLast((each) =>
      each.request === request && each.payload.getUint32(0, true) === index
    );
    return last?.payload.getUint32(4, true) ?? 0;
  }

  /** A record of requests in flight in split rings. */
  #replyRecord(ask: DataView): void {
    const [queues, size] = [ask.getUint16(16, true), ask.getUint16(18, true)];
    const bytes = queues * inflightBytes(false, size);
    const answer = new Uint8Array(ask.buffer.slice(0));
    new DataView(answer.buffer).setUint32(0, bytes, true);
    using file = createMemoryFile("scripted-inflight", bytes);
    this.reply(Request.GET_INFLIGHT_FD, answer, [file]);
  }

  #configAnswer(ask: DataView): Uint8Array {
    const [offset, length] = [ask.getUint32(0, true), ask.getUint32(4, true)];
    if (offset + length > this.config.length) return new Uint8Array(0);
    const answer = new Uint8Array(12 + length);
    answer.set(new Uint8Array(ask.buffer, 0, 12));
    answer.set(this.config.subarray(offset, offset + length), 12);
    return answer;
  }

  #serveIotlb(data: DataView, flags: number): void {
    const iova = Number(data.getBigUint64(0, true));
    const size = Number(data.getBigUint64(8, true));
    const type = data.getUint8(25);
    const place = `${iova.toString(16)}+${size >= 2 ** 63 ? "all" : size.toString(16)}`;
    if (type === UPDATE) {
      const user = data.getBigUint64(16, true);
      const permission = data.getUint8(24);
      this.told.push(`update ${place} ${user.toString(16)} ${permission}`);
      // What is there is taken to be the same.
      if (!this.entries.some((entry) => entry.iova === iova)) {
        this.entries.push({ iova, size, user, permission });
      }
    } else if (type === INVALIDATE) {
      this.told.push(`invalidate ${place}`);
      // As DPDK does it: what begins right behind the range goes, too.
      const rest = this.entries.filter((entry) =>
        entry.iova > iova + size || entry.iova + entry.size <= iova
      );
      this.entries.splice(0, this.entries.length, ...rest);
    }
    if ((flags & FLAG_NEED_REPLY) === 0) return;
    this.owed++;
    if (this.manner === "at once") this.acknowledge();
    if (this.manner === "refusing") this.acknowledge(this.owed, 1);
  }
}
