/**
 * One session between a front end and a back end, with us in between: messages and descriptors pass both ways, in order
 * and in their own framing.
 *
 * What is understood on the way: which features are agreed, which memory there is, and everything about I/O addresses.
 * IOTLB messages of the front end are answered here and not passed; it knows only its own translation, and ours is the
 * guest's. Of the channel on which a back end sends messages of its own we keep the front end's end, and the back end
 * gets one of ours (`back_end_channel.ts`).
 *
 * @module
 */
import { isUnixStream, POLLERR, POLLHUP, type PollSet, type UnixStream } from "../../host/mod.ts";
import type { Log } from "../../log.ts";
import {
  Connection,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  ProtocolError,
  ProtocolFeature,
  Request,
  requestName,
  TransportFeature,
} from "../../vhost_user/mod.ts";
import { BackEndChannel } from "./back_end_channel.ts";
import { BackEndIotlb, type BackEndIotlbOptions } from "./back_end_iotlb.ts";
import { eventsOf, pass } from "./relay.ts";
import { ReplyOrder } from "./reply_order.ts";

/** Messages of one connection that are passed at once, so that none keeps the others waiting. */
const BURST = 64;
/** Bytes of a general reply. */
const STATUS_BYTES = 8;
const FRONT_END_GONE = "the front end is gone";
const HUNG_UP = POLLHUP | POLLERR;

/** What a session is made of. */
export interface ProxySessionOptions extends Omit<BackEndIotlbOptions, "connection"> {
  /** Leads to the front end; owned by the session. */
  readonly frontEnd: UnixStream;
  /** Leads to the back end; owned by the session. */
  readonly backEnd: UnixStream;
  /** What log lines call the endpoint. */
  readonly name: string;
  /** Where they go. */
  readonly log: Log;
}

/** A session. */
export class ProxySession {
  /** What the back end is given. */
  readonly iotlb: BackEndIotlb;
  /** Why it is over, once it is. */
  ended: string | undefined;
  /** Whether that is nobody's fault: a front end may go whenever it likes. */
  isOrderly = false;
  readonly #options: ProxySessionOptions;
  readonly #frontEnd: Connection;
  readonly #backEnd: Connection;
  /** The back end's own messages. */
  #channel: BackEndChannel | undefined;
  readonly #replies = new ReplyOrder();
  #protocolFeatures = 0;
  #slots = [-1, -1, -1, -1];

  /** Begins; nothing has been read from either side. */
  constructor(options: ProxySessionOptions) {
    this.#options = options;
    this.#frontEnd = new Connection(options.frontEnd);
    this.#backEnd = new Connection(options.backEnd);
    this.iotlb = new BackEndIotlb({ ...options, connection: this.#backEnd });
  }

  /** Adds what it has to be woken for to a set. */
  addTo(poll: PollSet): void {
    this.#slots = [
      poll.add(this.#backEnd.stream.descriptor.number, eventsOf(this.#backEnd, this.#readsBackEnd)),
      this.#channel?.addBackEnd(poll) ?? -1,
      poll.add(
        this.#frontEnd.stream.descriptor.number,
        eventsOf(this.#frontEnd, this.#readsFrontEnd),
      ),
      this.#channel?.addFrontEnd(poll) ?? -1,
    ];
  }

  /** Passes what is ready in the set that it has been added to last. The back end comes first: somebody may wait. */
  look(poll: PollSet): void {
    const [backEnd, channel, frontEnd, upstream] = this.#slots.map((slot) => poll.ready(slot));
    this.#lookAtBackEnd(backEnd, channel);
    if (upstream !== 0) this.#channel?.passFrontEnd();
    if (frontEnd !== 0 && this.ended === undefined) this.#passFrontEnd(frontEnd);
    this.#checkPatience();
  }

  /**
   * As {@linkcode look} for the back end alone, with this thread standing still.
   *
   * @param poll A set that nobody else uses.
   */
  wait(poll: PollSet, milliseconds: number): void {
    poll.clear();
    const backEnd = poll.add(
      this.#backEnd.stream.descriptor.number,
      eventsOf(this.#backEnd, this.#readsBackEnd),
    );
    const channel = this.#channel?.addBackEnd(poll) ?? -1;
    // What is on its way to the front end must not keep the back end from being read.
    const frontEnd = poll.add(
      this.#frontEnd.stream.descriptor.number,
      eventsOf(this.#frontEnd, false),
    );
    const upstream = this.#channel?.addFrontEnd(poll, false) ?? -1;
    poll.poll(milliseconds);
    this.#lookAtBackEnd(poll.ready(backEnd), poll.ready(channel));
    if (poll.ready(frontEnd) !== 0 && this.ended === undefined && !this.#frontEnd.flush()) {
      this.#end(FRONT_END_GONE);
    }
    if (poll.ready(upstream) !== 0) this.#channel?.flushFrontEnd();
    this.#checkPatience();
  }

  /** Ends it. Does nothing the second time. */
  close(): void {
    this.#end("it was closed");
  }

  get #readsBackEnd(): boolean {
    return !this.#frontEnd.hasUnsent;
  }

  get #readsFrontEnd(): boolean {
    return !this.#backEnd.hasUnsent;
  }

  #lookAtBackEnd(backEnd: number, channel: number): void {
    if (backEnd !== 0 && this.ended === undefined) this.#passBackEnd(backEnd);
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

  /** Messages of the front end. */
  #passFrontEnd(ready: number): void {
    if (!this.#frontEnd.flush()) return this.#end(FRONT_END_GONE);
    if (!this.#readsFrontEnd) {
      if ((ready & HUNG_UP) !== 0) this.#end(FRONT_END_GONE);
      return;
    }
    for (let i = 0; i < BURST && this.ended === undefined && this.#readsFrontEnd; i++) {
      const result = this.#frontEnd.read();
      if (result === "nothing") return;
      if (result === "closed") return this.#end(FRONT_END_GONE);
      if (result instanceof ProtocolError) return this.#end(`of the front end: ${result.message}`);
      this.#fromFrontEnd();
    }
  }

  #fromFrontEnd(): void {
    const { request, data, size } = this.#frontEnd;
    const { iotlb } = this;
    switch (request) {
      case Request.IOTLB_MSG:
        return this.#answerFrontEnd();
      case Request.SET_BACKEND_REQ_FD:
        return this.#openChannel();
      case Request.SET_PROTOCOL_FEATURES:
        if (size >= 4) this.#protocolFeatures = data.getUint32(0, true);
        return this.#toBackEnd();
      case Request.SET_FEATURES:
        this.#toBackEnd();
        return this.#setFeatures();
      case Request.SET_MEM_TABLE: {
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
    const { request, flags } = this.#frontEnd;
    this.#replies.passed(request, flags, this.#protocolFeatures);
    pass(this.#frontEnd, this.#backEnd);
  }

  /** The front end's own translation is nobody's business here. */
  #answerFrontEnd(): void {
    if ((this.#frontEnd.flags & FLAG_NEED_REPLY) === 0) return;
    if (this.#replies.answered()) this.#acknowledgeFrontEnd(1);
  }

  #acknowledgeFrontEnd(count: number): void {
    for (let i = 0; i < count; i++) {
      this.#frontEnd.send(Request.IOTLB_MSG, FLAG_REPLY, new Uint8Array(STATUS_BYTES));
    }
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

  /** Without acknowledgements nothing could be promised to the guest. */
  #checkProtocol(): void {
    const needed = ProtocolFeature.REPLY_ACK | ProtocolFeature.BACKEND_REQ;
    if (!this.iotlb.isActive || (this.#protocolFeatures & needed) === needed) return;
    this.#end("REPLY_ACK and BACKEND_REQ are not agreed, without which nothing can be translated");
  }

  /** Keeps the front end's channel and gives the back end one of ours. */
  #openChannel(): void {
    const { descriptors } = this.#frontEnd;
    if (descriptors.length !== 1 || !isUnixStream(descriptors[0])) {
      return this.#end("of the front end: SET_BACKEND_REQ_FD came without a unix stream socket");
    }
    this.#channel?.close();
    const { iotlb } = this;
    const { log, name } = this.#options;
    const options = { iotlb, backEnd: this.#backEnd, log, name };
    const [channel, theirs] = BackEndChannel.open(descriptors.shift()!, options);
    this.#channel = channel;
    descriptors.push(theirs);
    this.#toBackEnd();
  }

  /** Messages of the back end: replies. */
  #passBackEnd(ready: number): void {
    if (!this.#backEnd.flush()) return this.#end("the back end is gone");
    if (!this.#readsBackEnd) {
      if ((ready & HUNG_UP) !== 0) this.#end("the back end is gone");
      return;
    }
    for (let i = 0; i < BURST && this.ended === undefined && this.#readsBackEnd; i++) {
      const result = this.#backEnd.read();
      if (result === "nothing") return;
      if (result === "closed") return this.#end("the back end is gone");
      if (result instanceof ProtocolError) return this.#end(`of the back end: ${result.message}`);
      this.#fromBackEnd();
    }
  }

  #fromBackEnd(): void {
    const { request, flags } = this.#backEnd;
    // Nobody but us sends IOTLB messages to the back end, so replies to them are ours.
    if (request === Request.IOTLB_MSG) return this.#takeAcknowledgement();
    if ((flags & FLAG_REPLY) === 0) {
      return this.#end(`of the back end: ${requestName(request)} is not marked as a reply`);
    }
    const { before, behind } = this.#replies.replied(request);
    this.#acknowledgeFrontEnd(before);
    if (request === Request.GET_FEATURES) this.#checkOffer();
    pass(this.#backEnd, this.#frontEnd);
    this.#acknowledgeFrontEnd(behind);
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
