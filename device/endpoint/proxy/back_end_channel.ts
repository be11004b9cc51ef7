/**
 * The channel on which a back end sends messages of its own. Its misses are answered here; other messages are passed
 * to the front end, and the replies back. If the front end has not agreed on a channel, only misses have a meaning,
 * and a message that asks for a reply gets a failure.
 *
 * If the channel fails, the session continues without it, as it would between the two sides alone.
 */
import { type Descriptor, type PollSet, UnixStream } from "../../host/mod.ts";
import type { Log } from "../../log.ts";
import { Connection, FLAG_NEED_REPLY, FLAG_REPLY, ProtocolError } from "../../vhost_user/mod.ts";
import type { BackEndIotlb } from "./back_end_iotlb.ts";
import { IOTLB_BYTES, readIotlbMessage } from "./iotlb_message.ts";
import { eventsOf, pass } from "./pass_message.ts";

/** Messages that are passed at once: a miss costs up to a few hundred walks. */
const BURST = 16;
/** The back end's IOTLB message. */
const CHANNEL_IOTLB = 1;
/** Bytes of a general reply. */
const STATUS_BYTES = 8;

/** Options of a {@linkcode BackEndChannel}. */
export interface BackEndChannelOptions {
  /** Answers misses. */
  readonly iotlb: BackEndIotlb;
  /** The connection to the back end. Translations are sent on it, so misses wait while it is full. */
  readonly backEnd: Connection;
  /** The endpoint's name in log lines. */
  readonly name: string;
  /** The log. */
  readonly log: Log;
}

/** Both ends of a channel. */
export class BackEndChannel {
  /** How the back end violated the protocol, if it has. */
  problem: string | undefined;
  readonly #options: BackEndChannelOptions;
  /** The end towards the back end. */
  readonly #own: Connection;
  /** The end towards the front end, if it has agreed on a channel. */
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
   * Opens a channel.
   *
   * @param upstream The end that the front end sent for the back end, if it did; owned by the channel from now on.
   * @returns The channel, and the end for the back end, which the caller owns.
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

  /** Serves the back end's messages. */
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

  /** Misses cause messages to the back end; other messages go to the front end. */
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
