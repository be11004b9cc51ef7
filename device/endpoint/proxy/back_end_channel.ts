/**
 * The channel on which a back end sends messages of its own, with us in between: its misses are answered here, the rest
 * passes to the front end, and the replies back. A front end that has not agreed on such a channel has none; then only
 * misses have a meaning, and what asks for a reply is told that it failed.
 *
 * Where the channel fails the session goes on without it, as it would between the two sides alone.
 *
 * @module
 */
import { type Descriptor, type PollSet, UnixStream } from "../../host/mod.ts";
import type { Log } from "../../log.ts";
import { Connection, FLAG_NEED_REPLY, FLAG_REPLY, ProtocolError } from "../../vhost_user/mod.ts";
import type { BackEndIotlb } from "./back_end_iotlb.ts";
import { IOTLB_BYTES, readIotlbMessage } from "./iotlb_message.ts";
import { eventsOf, pass } from "./pass_message.ts";

/** Messages that are passed at once: a miss costs up to some hundred walks. */
const BURST = 16;
/** A message of the back end on its own channel: about I/O addresses. */
const CHANNEL_IOTLB = 1;
/** Bytes of a general reply. */
const STATUS_BYTES = 8;

/** What a channel leads to. */
export interface BackEndChannelOptions {
  /** Answers misses. */
  readonly iotlb: BackEndIotlb;
  /** Leads to the back end: answers go there, so misses wait while it is full. */
  readonly backEnd: Connection;
  /** What log lines call the endpoint. */
  readonly name: string;
  /** Where they go. */
  readonly log: Log;
}

/** Both ends of a channel. */
export class BackEndChannel {
  /** What the back end did against the protocol, once it has. */
  problem: string | undefined;
  readonly #options: BackEndChannelOptions;
  /** Leads to the back end. */
  readonly #own: Connection;
  /** Leads to the front end, where that has agreed on a channel. */
  readonly #upstream: Connection | undefined;

  private constructor(
    own: UnixStream,
    upstream: Connection | undefined,
    options: BackEndChannelOptions,
  ) {
    this.#own = new Connection(own);
    this.#upstream = upstream;
    this.#options = options;
  }

  /**
   * Opens one.
   *
   * @param upstream The end that the front end meant for the back end, if it has; owned by the channel from now on.
   * @returns The channel, and the end for the back end, which is the caller's.
   */
  static open(
    upstream: Descriptor | undefined,
    options: BackEndChannelOptions,
  ): [BackEndChannel, Descriptor] {
    const [own, theirs] = UnixStream.pair();
    const connection = upstream === undefined
      ? undefined
      : new Connection(new UnixStream(upstream));
    return [new BackEndChannel(own, connection, options), theirs.descriptor];
  }

  /** Adds the back end's side to a set. */
  addBackEnd(poll: PollSet): number {
    return poll.add(this.#own.stream.descriptor.number, eventsOf(this.#own, this.#readsBackEnd));
  }

  /** Adds the front end's side to a set. */
  addFrontEnd(poll: PollSet): number {
    const upstream = this.#upstream;
    if (upstream === undefined) return -1;
    return poll.add(upstream.stream.descriptor.number, eventsOf(upstream, this.#readsFrontEnd));
  }

  /** Serves what the back end has said. */
  passBackEnd(): void {
    if (!this.#own.flush()) return this.close();
    for (let i = 0; i < BURST && this.#isOpen && this.#readsBackEnd; i++) {
      const result = this.#own.read();
      if (result === "nothing") return;
      if (result === "closed") return this.close();
      if (result instanceof ProtocolError) this.problem = result.message;
      else this.#fromBackEnd();
      if (this.problem !== undefined) return this.close();
    }
  }

  /** Passes the front end's replies. */
  passFrontEnd(): void {
    const upstream = this.#upstream;
    if (upstream === undefined) return;
    if (!upstream.flush()) return this.close();
    for (let i = 0; i < BURST && this.#isOpen && this.#readsFrontEnd; i++) {
      const result = upstream.read();
      if (result === "nothing") return;
      if (result !== "message") return this.close();
      pass(upstream, this.#own);
    }
  }

  /** Closes both ends. Does nothing the second time. */
  close(): void {
    this.#own.close();
    this.#upstream?.close();
  }

  get #isOpen(): boolean {
    return this.#own.stream.descriptor.isOpen;
  }

  /** Misses lead to messages to the back end, and the rest to the front end. */
  get #readsBackEnd(): boolean {
    const { backEnd, iotlb } = this.#options;
    return !iotlb.isPutOff && !backEnd.hasUnsent && this.#upstream?.hasUnsent !== true;
  }

  get #readsFrontEnd(): boolean {
    return !this.#own.hasUnsent;
  }

  #fromBackEnd(): void {
    const { request, flags, data, size } = this.#own;
    if (request !== CHANNEL_IOTLB || (flags & FLAG_REPLY) !== 0) {
      if (this.#upstream !== undefined) return pass(this.#own, this.#upstream);
      const wantsReply = (flags & (FLAG_NEED_REPLY | FLAG_REPLY)) === FLAG_NEED_REPLY;
      if (wantsReply) this.#own.send(request, FLAG_REPLY, Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0));
      return;
    }
    if (size < IOTLB_BYTES) {
      this.problem = `an IOTLB message of ${size} bytes`;
      return;
    }
    const { iotlb, log, name } = this.#options;
    const message = readIotlbMessage(data);
    if (log.enabled("debug")) {
      log.debug(`${name}: IOTLB message ${message.type} for page 0x${message.page.toString(16)}`);
    }
    iotlb.asked(message);
    if ((flags & FLAG_NEED_REPLY) !== 0) {
      this.#own.send(CHANNEL_IOTLB, FLAG_REPLY, new Uint8Array(STATUS_BYTES));
    }
  }
}
