/**
 * One session between a front end and a back end: messages and descriptors are passed in both directions, in order and
 * unchanged.
 *
 * The session follows which features are agreed, which memory there is, and everything about I/O virtual addresses.
 * IOTLB messages of the front end are answered here and not passed: the front end knows its own translation, and the
 * back end needs the guest's. Of the channel for the back end's own messages, the proxy keeps the front end's end, and
 * the back end gets another one (`back_end_channel.ts`).
 */
import {
  type Descriptor,
  isOtherEnd,
  isUnixStream,
  POLLERR,
  POLLHUP,
  type PollSet,
  type UnixStream,
} from "../../host/mod.ts";
import type { Log } from "../../log.ts";
import {
  Connection,
  FLAG_REPLY,
  MAX_TABLE_REGIONS,
  ProtocolError,
  Request,
  requestName,
  TransportFeature,
} from "../../vhost_user/mod.ts";
import { BackEndChannel } from "./back_end_channel.ts";
import { BackEndIotlb, type BackEndIotlbOptions } from "./back_end_iotlb.ts";
import { ConfigMessages } from "./config_messages.ts";
import { FrontEndReplies } from "./front_end_replies.ts";
import { ProtocolAgreement } from "./protocol_agreement.ts";
import { eventsOf, pass, passAs } from "./pass_message.ts";

/** Messages of one connection that are passed at once, so that none delays the others. */
const BURST = 64;
/** Milliseconds after which no further one is. */
const BURST_MS = 1;
/** Bytes of a general reply. */
const STATUS_BYTES = 8;
const FRONT_END_GONE = "the front end is gone";
const HUNG_UP = POLLHUP | POLLERR;

/** Options of a {@linkcode ProxySession}. */
export interface ProxySessionOptions extends Omit<BackEndIotlbOptions, "connection"> {
  /** The connection to the front end; owned by the session. */
  readonly frontEnd: UnixStream;
  /** The connection to the back end; owned by the session. */
  readonly backEnd: UnixStream;
  /** The endpoint's name in log lines. */
  readonly name: string;
  /** The log. */
  readonly log: Log;
}

/** One session. */
export class ProxySession {
  /** The back end's translations. */
  readonly iotlb: BackEndIotlb;
  /** Why the session has ended, once it has. */
  ended: string | undefined;
  /** Whether it ended in an orderly way: a front end may disconnect at any time. */
  isOrderly = false;
  readonly #options: ProxySessionOptions;
  readonly #frontEnd: Connection;
  readonly #backEnd: Connection;
  /** The channel of the back end's own messages. */
  #channel: BackEndChannel | undefined;
  readonly #agreement = new ProtocolAgreement();
  readonly #replies: FrontEndReplies;
  readonly #config: ConfigMessages;
  #slots = [-1, -1, -1, -1];

  /** Begins the session. */
  constructor(options: ProxySessionOptions) {
    this.#options = options;
    this.#frontEnd = new Connection(options.frontEnd);
    this.#backEnd = new Connection(options.backEnd);
    this.#replies = new FrontEndReplies(this.#frontEnd, this.#agreement);
    this.#config = new ConfigMessages({
      frontEnd: this.#frontEnd,
      backEnd: this.#backEnd,
      replies: this.#replies,
      agreement: this.#agreement,
      name: options.name,
      log: options.log,
    });
    this.iotlb = new BackEndIotlb({ ...options, connection: this.#backEnd });
  }

  /** Adds its descriptors to a set. */
  addTo(poll: PollSet): void {
    this.#slots = [
      poll.add(
        this.#backEnd.stream.descriptor.number,
        eventsOf(this.#backEnd, !this.#frontEnd.hasUnsent),
      ),
      this.#channel?.addBackEnd(poll) ?? -1,
      poll.add(
        this.#frontEnd.stream.descriptor.number,
        eventsOf(this.#frontEnd, !this.#backEnd.hasUnsent),
      ),
      this.#channel?.addFrontEnd(poll) ?? -1,
    ];
  }

  /**
   * Passes what is ready in the set that it was last added to. The back end is first, as the front end may wait for
   * it.
   */
  look(poll: PollSet): void {
    const [backEnd, channel, frontEnd, upstream] = this.#slots.map((slot) => poll.ready(slot));
    this.#lookAtBackEnd(backEnd, channel);
    if (upstream !== 0) this.#channel?.passFrontEnd();
    if (frontEnd !== 0 && this.ended === undefined) {
      this.#read(this.#frontEnd, this.#backEnd, frontEnd);
    }
    this.#checkPatience();
  }

  /** Ends it. Does nothing the second time. */
  close(): void {
    this.#end("it was closed");
  }

  /** Whether the front end has ever sent a message. */
  get hasSpoken(): boolean {
    return this.#frontEnd.request !== 0;
  }

  #lookAtBackEnd(backEnd: number, channel: number): void {
    if (backEnd !== 0 && this.ended === undefined) {
      this.#read(this.#backEnd, this.#frontEnd, backEnd);
    }
    if (channel === 0 || this.ended !== undefined) return;
    this.#channel?.passBackEnd();
    const problem = this.#channel?.problem;
    if (problem !== undefined) this.#end(`of the back end, on its channel: ${problem}`);
  }

  #checkPatience(): void {
    if (this.ended !== undefined || !this.iotlb.isOverdue(performance.now())) return;
    this.#options.counters.timeouts++;
    this.#end(`the back end did not acknowledge within ${this.#options.patience} ms`);
  }

  /** Reads messages of one side, for as long as the other takes what they lead to. */
  #read(from: Connection, to: Connection, ready: number): void {
    const isFrontEnd = from === this.#frontEnd;
    const gone = isFrontEnd ? FRONT_END_GONE : "the back end is gone";
    if (!from.flush()) return this.#end(gone);
    if (to.hasUnsent && (ready & HUNG_UP) !== 0) return this.#end(gone);
    const end = performance.now() + BURST_MS;
    for (let i = 0; i < BURST && this.ended === undefined && !to.hasUnsent; i++) {
      if (i > 0 && performance.now() >= end) return;
      const result = from.read();
      if (result === "nothing") return;
      if (result === "closed") return this.#end(gone);
      if (result instanceof ProtocolError) {
        return this.#end(`of the ${isFrontEnd ? "front" : "back"} end: ${result.message}`);
      }
      if (isFrontEnd) this.#fromFrontEnd();
      else this.#fromBackEnd();
    }
  }

  #fromFrontEnd(): void {
    const { request, flags, data, size } = this.#frontEnd;
    const { iotlb } = this;
    switch (request) {
      case Request.IOTLB_MSG:
        return this.#replies.acknowledge(request, flags, 0);
      case Request.SET_BACKEND_REQ_FD:
        return this.#openChannel();
      case Request.SET_PROTOCOL_FEATURES:
        return this.#agree();
      case Request.GET_CONFIG:
      case Request.SET_CONFIG:
        if (!this.#config.fromFrontEnd()) this.#toBackEnd();
        return;
      case Request.SET_FEATURES:
        this.#toBackEnd();
        return this.#setFeatures();
      case Request.SET_MEM_TABLE: {
        const count = size < 8 ? 0 : data.getUint32(0, true);
        if (count > MAX_TABLE_REGIONS) return this.#refuseTable(count);
        const isKept = size < 8 || iotlb.regions.replace(data, size);
        if (!isKept) iotlb.invalidateAll();
        this.#toBackEnd();
        return this.#memoryChanged();
      }
      case Request.ADD_MEM_REG:
        if (size >= 40) iotlb.regions.add(data);
        this.#toBackEnd();
        return this.#memoryChanged();
      case Request.REM_MEM_REG:
        if (size >= 40) iotlb.regions.remove(data);
        iotlb.invalidateAll();
        this.#toBackEnd();
        return this.#memoryChanged();
      default:
        return this.#toBackEnd();
    }
  }

  #toBackEnd(): void {
    const { request, flags, payload, size } = this.#frontEnd;
    this.#replies.passed(request, flags);
    passAs(
      this.#frontEnd,
      this.#backEnd,
      this.#agreement.passedFlags(flags),
      payload.subarray(0, size),
    );
  }

  /** SET_PROTOCOL_FEATURES: adds the features that translation needs. */
  #agree(): void {
    const { data, size } = this.#frontEnd;
    if (size === STATUS_BYTES) {
      data.setUint32(0, this.#agreement.agree(data.getUint32(0, true)), true);
    }
    this.#toBackEnd();
    if (this.#agreement.needsChannel && this.#channel === undefined) {
      const theirs = this.#replaceChannel(undefined);
      this.#backEnd.send(Request.SET_BACKEND_REQ_FD, 0, new Uint8Array(0), [theirs]);
      theirs.close();
    }
  }

  #refuseTable(count: number): void {
    const { request, flags } = this.#frontEnd;
    const line = `SET_MEM_TABLE has ${count} regions, not 1 to ${MAX_TABLE_REGIONS}`;
    if (!this.#agreement.wantsReply(flags)) return this.#end(`of the front end: ${line}`);
    this.#options.log.warnLimited("refused", `${this.#options.name}: refused: ${line}`);
    this.#replies.acknowledge(request, flags, 1);
  }

  #setFeatures(): void {
    const { data, size } = this.#frontEnd;
    if (size < 8) return;
    const isOn = (data.getUint32(4, true) & TransportFeature.ACCESS_PLATFORM) !== 0;
    const { log, name } = this.#options;
    if (!isOn) {
      log.debug(`${name}: its addresses are not translated: ACCESS_PLATFORM is not agreed`);
    }
    this.iotlb.isOn = isOn;
    this.#checkProtocol();
  }

  #memoryChanged(): void {
    this.iotlb.memoryChanged();
    this.#checkProtocol();
  }

  /** Without acknowledgements, an UNMAP could not be answered. */
  #checkProtocol(): void {
    if (!this.iotlb.isActive || this.#agreement.isEnough) return;
    this.#end("REPLY_ACK and BACKEND_REQ are not agreed, without which nothing can be translated");
  }

  /** Keeps the front end's channel and gives the back end another one. */
  #openChannel(): void {
    const { descriptors } = this.#frontEnd;
    if (descriptors.length !== 1 || !isUnixStream(descriptors[0])) {
      return this.#end("of the front end: SET_BACKEND_REQ_FD came without a unix stream socket");
    }
    if (isOtherEnd(descriptors[0], this.#frontEnd.stream)) {
      return this.#end("of the front end: SET_BACKEND_REQ_FD came with an end of its connection");
    }
    // Until the channel owns it, it stays in the list, which is closed.
    const theirs = this.#replaceChannel(descriptors[0]);
    descriptors.length = 0;
    descriptors.push(theirs);
    this.#toBackEnd();
  }

  /** Replaces the channel. Returns the end for the back end, which the caller owns. */
  #replaceChannel(upstream: Descriptor | undefined): Descriptor {
    this.#channel?.close();
    const { iotlb } = this;
    const { log, name } = this.#options;
    const options = { iotlb, backEnd: this.#backEnd, log, name };
    const [channel, theirs] = BackEndChannel.open(upstream, options);
    this.#channel = channel;
    return theirs;
  }

  #fromBackEnd(): void {
    const { request, flags } = this.#backEnd;
    // Only the proxy sends IOTLB messages to the back end.
    if (request === Request.IOTLB_MSG) return this.#takeAcknowledgement();
    if ((flags & FLAG_REPLY) === 0) {
      return this.#end(`of the back end: ${requestName(request)} is not marked as a reply`);
    }
    const { behind, access } = this.#replies.replied(request);
    if (request === Request.GET_FEATURES) this.#checkOffer();
    if (request === Request.GET_PROTOCOL_FEATURES) this.#noteOffer();
    if (request === Request.GET_CONFIG && access !== undefined) this.#config.fromBackEnd(access);
    else pass(this.#backEnd, this.#frontEnd);
    this.#replies.give(behind);
  }

  #noteOffer(): void {
    const { data, size } = this.#backEnd;
    if (size >= 4) this.#agreement.offered = data.getUint32(0, true);
  }

  #takeAcknowledgement(): void {
    const { data, flags, size } = this.#backEnd;
    if ((flags & FLAG_REPLY) === 0 || size !== STATUS_BYTES) {
      return this.#end("of the back end: IOTLB_MSG is no acknowledgement");
    }
    const problem = this.iotlb.acknowledged(data.getUint32(0, true) | data.getUint32(4, true));
    if (problem !== undefined) this.#end(`of the back end: ${problem}`);
  }

  #checkOffer(): void {
    const { data, size } = this.#backEnd;
    if (size < 8 || (data.getUint32(4, true) & TransportFeature.ACCESS_PLATFORM) !== 0) return;
    const { log, name } = this.#options;
    log.warnLimited(
      "offer",
      `${name}: the back end does not offer to have its addresses translated ` +
        "(DPDK does with iommu-support=1)",
    );
  }

  #end(why: string): void {
    if (this.ended !== undefined) return;
    this.ended = why;
    this.isOrderly = why === FRONT_END_GONE;
    this.iotlb.close();
    this.#channel?.close();
    this.#frontEnd.close();
    this.#backEnd.close();
  }
}
