/**
 * One connection to a back end, from its first message to its end: we are its front end, and its driver.
 *
 * Nothing here waits. A violation of the rules of messages or rings ends the session, with a line that says why; for
 * the guest, requests are then not answered for some time.
 */
import { OsError, type PollSet, UnixStream } from "../../host/mod.ts";
import {
  BackEndRequest,
  CONFIG_HEADER_BYTES,
  Connection,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  ProtocolFeature,
  Request,
  requestName,
  TransportFeature,
} from "../../vhost_user/mod.ts";
import { type BackEndIdentity, identify, readConfig } from "./back_end_identity.ts";
import { askWords, BackEndMessages, twoWords } from "./back_end_messages.ts";
import { BackEndRing } from "./back_end_ring.ts";
import type { RelayCounters } from "./relay_counters.ts";
import { RelayMemory } from "./relay_memory.ts";
import { backEndFeatures, type FeatureWords } from "./relayed_features.ts";
import type { RelayedType } from "./relayed_types.ts";

/** Messages on the back end's channel that are served at once. */
const BURST = 64;
/** Most writes to the config space that are under way. */
const CONFIG_WRITES_MAX = 64;

/** Options of a {@linkcode BackEndSession}. */
export interface BackEndSessionOptions {
  /** The connection to the back end; owned by the session. */
  readonly stream: UnixStream;
  /** The type of the device. */
  readonly type: RelayedType;
  /** Bytes for buffers. */
  readonly bufferBytes: number;
  /** Time limit of a reply in milliseconds. */
  readonly patience: number;
  /** The counters. */
  readonly counters: RelayCounters;
  /** Called when the back end is identified. */
  readonly onIdentity: () => void;
  /** Called when its config space has changed. */
  readonly onConfig: () => void;
  /** Called with a log line about something that does not end the session. */
  readonly onOddity: (line: string) => void;
}

/** One session. */
export class BackEndSession {
  /** The identity of the back end, once it is known. */
  identity: BackEndIdentity | undefined;
  /** Its config space, as last read. */
  config: Uint8Array<ArrayBuffer> = new Uint8Array(0);
  /** Why the session has ended, once it has. */
  ended: string | undefined;
  /** The back end's memory, once features are agreed. */
  memory: RelayMemory | undefined;
  readonly #options: BackEndSessionOptions;
  readonly #messages: BackEndMessages;
  readonly #rings: BackEndRing[] = [];
  #channel: Connection | undefined;
  #featuresLow = 0;
  /** Whether SET_MEM_TABLE was sent since the last reset. */
  #isTableTold = false;
  #configReads = 0;
  #configWrites = 0;
  #messageSlot = -1;
  #channelSlot = -1;

  /** Begins by identifying the back end. */
  constructor(options: BackEndSessionOptions) {
    this.#options = options;
    this.#messages = new BackEndMessages(options.stream);
    this.#guarded(() =>
      identify(
        this.#messages,
        options.type.queues,
        (protocol) => this.#openChannel(protocol),
        (identity) => {
          this.identity = identity;
          this.config = identity.config;
          options.onIdentity();
        },
      )
    );
  }

  /** Whether its rings may be started. */
  get isConfigured(): boolean {
    return this.memory !== undefined && this.ended === undefined;
  }

  /** Whether a time limit of the back end runs. */
  get isWaiting(): boolean {
    return this.ended === undefined && this.#messages.isWaiting;
  }

  /** Agrees on features, and sends the memory table if that has not been done. */
  configure(agreed: FeatureWords): void {
    const { identity } = this;
    if (identity === undefined || this.ended !== undefined) return;
    this.#guarded(() => {
      const { low, high } = backEndFeatures(identity.features, agreed);
      this.#featuresLow = low;
      this.#messages.tell(Request.SET_FEATURES, twoWords(low, high));
      this.memory ??= new RelayMemory(identity.queueCount, this.#options.bufferBytes);
      if (this.#isTableTold) return;
      this.#isTableTold = true;
      this.#messages.tell(Request.SET_MEM_TABLE, this.memory.table(), [this.memory.file]);
    });
  }

  /** Starts a ring; `undefined` if that ends the session. */
  startRing(index: number, entries: number): BackEndRing | undefined {
    const { memory } = this;
    if (memory === undefined || this.ended !== undefined) return undefined;
    let ring: BackEndRing | undefined;
    this.#guarded(() => {
      ring = new BackEndRing(index, memory, entries, this.#featuresLow);
      this.#rings.push(ring);
      ring.start(this.#messages, (this.#featuresLow & TransportFeature.PROTOCOL_FEATURES) !== 0);
    });
    return this.ended === undefined ? ring : undefined;
  }

  /**
   * Stops a ring.
   *
   * @param stopped Called when the back end has stopped using it, unless the session ends before.
   */
  stopRing(ring: BackEndRing, stopped: () => void): void {
    if (this.ended !== undefined) return;
    this.#guarded(() =>
      askWords(this.#messages, Request.GET_VRING_BASE, () => {
        stopped();
        this.#rings.splice(this.#rings.indexOf(ring), 1);
        ring.close();
        return undefined;
      }, twoWords(ring.index, 0))
    );
  }

  /** Resets the device, if the back end supports that. */
  resetDevice(): void {
    if (((this.identity?.protocol ?? 0) & ProtocolFeature.RESET_DEVICE) === 0) return;
    if (this.ended !== undefined) return;
    this.#isTableTold = false;
    this.#guarded(() => this.#messages.tell(Request.RESET_DEVICE));
  }

  /** Passes a write to the config space, and reads the result back. */
  writeConfig(bytes: Uint8Array, offset: number): void {
    if (((this.identity?.protocol ?? 0) & ProtocolFeature.CONFIG) === 0) return;
    if (this.ended !== undefined || this.config.length === 0) return;
    if (this.#configWrites === CONFIG_WRITES_MAX) return;
    const payload = new Uint8Array(CONFIG_HEADER_BYTES + bytes.length);
    const data = new DataView(payload.buffer);
    data.setUint32(0, offset, true);
    data.setUint32(4, bytes.length, true);
    payload.set(bytes, CONFIG_HEADER_BYTES);
    this.#guarded(() => {
      this.#messages.tell(Request.SET_CONFIG, payload, [], () => {
        this.#options.onOddity("the back end refused a write to the config space");
        return undefined;
      });
      this.#configWrites++;
      this.#readConfig(() => this.#configWrites--);
    });
  }

  /** Ends the session without counting a violation. */
  fail(reason: string): void {
    this.ended ??= reason;
  }

  /** Adds its descriptors to a set. */
  addTo(poll: PollSet): void {
    this.#messageSlot = poll.add(this.#messages.descriptor, this.#messages.events);
    this.#channelSlot = poll.add(this.#channel?.stream.descriptor.number ?? -1);
    for (const ring of this.#rings) ring.slot = poll.add(ring.callDescriptor);
  }

  /** Handles what is ready in the set that it has been added to last. */
  look(poll: PollSet): void {
    for (const ring of this.#rings) {
      if (ring.slot >= 0 && poll.ready(ring.slot) !== 0) ring.drain();
      ring.slot = -1;
    }
    if (this.ended !== undefined) return;
    const hasMessages = this.#messageSlot >= 0 && poll.ready(this.#messageSlot) !== 0;
    const hasChannel = this.#channelSlot >= 0 && poll.ready(this.#channelSlot) !== 0;
    this.#messageSlot = -1;
    this.#channelSlot = -1;
    this.#guarded(() => {
      if (hasMessages) {
        const problem = this.#messages.serve();
        if (problem !== undefined && this.#messages.isGone) this.fail(problem);
        else if (problem !== undefined) this.violation(problem);
      }
      if (hasChannel && this.ended === undefined) this.#serveChannel();
      const overdue = this.#messages.overdue(this.#options.patience);
      if (overdue === undefined || this.ended !== undefined) return;
      this.#options.counters.timeouts++;
      this.fail(overdue);
    });
  }

  /** Ends it: closes connection, rings and memory. Does nothing the second time. */
  close(): void {
    this.fail("closed");
    this.#messages.close();
    this.#channel?.close();
    for (const ring of this.#rings) ring.close();
    this.#rings.length = 0;
    this.memory?.close();
    this.memory = undefined;
  }

  /** Ends the session because the back end violated the protocol. */
  violation(reason: string): void {
    if (this.ended === undefined) this.#options.counters.violations++;
    this.fail(reason);
  }

  /** Runs an action; an error of the host ends this session only. */
  #guarded(action: () => void): void {
    try {
      action();
    } catch (error) {
      if (!(error instanceof OsError)) throw error;
      this.fail(error.message);
    }
  }

  #openChannel(protocol: number): void {
    if ((protocol & ProtocolFeature.BACKEND_REQ) === 0) return;
    const [ours, theirs] = UnixStream.pair();
    this.#channel = new Connection(ours);
    this.#messages.tell(Request.SET_BACKEND_REQ_FD, new Uint8Array(0), [theirs.descriptor]);
    theirs.close();
  }

  #serveChannel(): void {
    const channel = this.#channel!;
    for (let i = 0; i < BURST; i++) {
      const result = channel.read();
      if (result === "nothing") break;
      if (result !== "message") {
        channel.close();
        this.#channel = undefined;
        if (result !== "closed") this.violation(`on its channel: ${result.message}`);
        return;
      }
      const isServed = channel.request === BackEndRequest.CONFIG_CHANGE;
      if (isServed) this.#configChanged();
      else {
        this.#options.counters.messagesRefused++;
        this.#options.onOddity(`the back end asks for what a relay cannot do: ${channel.request}`);
      }
      if ((channel.flags & FLAG_NEED_REPLY) !== 0) {
        channel.send(channel.request, FLAG_REPLY, twoWords(isServed ? 0 : 1, 0));
      }
      // It does not read its replies, which would pile up without a bound.
      if (channel.hasUnsent) return this.violation("it does not read the replies on its channel");
    }
  }

  #configChanged(): void {
    // A second read, sent after the first, sees what has changed since the first was sent.
    if (this.#configReads < 2 && this.config.length > 0) this.#readConfig(() => {});
  }

  #readConfig(done: () => void): void {
    this.#configReads++;
    readConfig(this.#messages, this.config.length, (config) => {
      this.#configReads--;
      done();
      if (config === undefined) {
        this.#options.onOddity(`the back end no longer answers ${requestName(Request.GET_CONFIG)}`);
        return;
      }
      if (config.every((byte, i) => byte === this.config[i])) return;
      this.config = config;
      this.#options.onConfig();
    });
  }
}
