/**
 * The back end: one session with a front end, from its connection to its end, as the loop sees it.
 *
 * Messages are read, compared with `message_table.ts`, and served by the methods named there. A message that cannot be served is
 * *refused*. If it asked for a reply, the reply says so and the session goes on. Otherwise the front end would go on
 * from a wrong state, so the connection is closed, unless the only error is where the guest has put a ring.
 * Broken framing always closes it. Either way one log line names message and field.
 *
 * The session never waits for the front end. A reply that finds no room waits, and nothing more is read
 * until it is gone.
 */
import type { Address } from "../address.ts";
import {
  closeAll,
  type Event,
  OsError,
  PeerThreads,
  POLLIN,
  POLLOUT,
  truncations,
} from "../host/mod.ts";
import { Log } from "../log.ts";
import type { AddressSpace, GuestMemory, Queue } from "../../vring/mod.ts";
import type { VirtioDevice } from "../virtio_device.ts";
import { Connection, type MessageStream, ProtocolError } from "./connection.ts";
import { type EarlierSession, HeldSession } from "./held_session.ts";
import { type MessageHandlers, type ServedMessage, servedMessage } from "./message_table.ts";
import { Messages } from "./messages.ts";
import { MigrationMessages } from "./migration_messages.ts";
import {
  BackEndRequest,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  ProtocolFeature,
  requestName,
} from "./protocol.ts";
import { ALL_RING_FEATURES, type RingFeatures } from "./ring_features.ts";
import type { Ring } from "./ring.ts";
import { RingMessages } from "./ring_messages.ts";
import { type Refusal, Session } from "./session.ts";

/** How a back end is made, beyond its device. */
export interface BackEndOptions {
  /** Where log lines go; by default warnings and errors on standard error. */
  readonly log?: Log;
  /**
   * What queue and buffer addresses mean, for a device behind an IOMMU; with it ACCESS_PLATFORM is offered.
   * By default they are guest-physical.
   */
  readonly addressSpace?: (memory: GuestMemory) => AddressSpace;
  /** Which features of rings are on offer; all by default. */
  readonly ringFeatures?: RingFeatures;
  /** The session of an earlier process, to be taken over; the device has taken over its state before. */
  readonly earlier?: EarlierSession;
}

/** Milliseconds after which no further message is served: a front end that never stops must not keep others waiting. */
const BURST_MS = 1;
/** Most messages served at once, however quickly. */
const BURST = 64;
/** A message that is done, but for its answer. */
interface Unanswered {
  readonly refusal: Refusal;
  readonly wantsReply: boolean;
  readonly misplaced: boolean;
}

const DONE = 0;
const FAILED = 1;

/** One front end's session with a device. */
export class BackEnd {
  readonly #connection: Connection;
  readonly #log: Log;
  readonly #session: Session;
  readonly #migration: MigrationMessages;
  readonly #messages: Messages;
  readonly #handlers: MessageHandlers;
  readonly #held: HeldSession;
  #open = true;
  #served = 0;
  /** The message last read, while the device is still in the middle of what it asked for. */
  #unanswered: Unanswered | undefined;
  #truncations = truncations();

  /** Begins a session on a connection, which it owns from now on. */
  constructor(stream: MessageStream, device: VirtioDevice, options: BackEndOptions = {}) {
    this.#connection = new Connection(stream);
    this.#log = options.log ?? new Log("warn");
    this.#session = new Session(this.#connection, device, this.#log, options.addressSpace);
    this.#migration = new MigrationMessages(this.#session);
    this.#messages = new Messages(
      this.#session,
      this.#migration,
      options.ringFeatures ?? ALL_RING_FEATURES,
    );
    this.#handlers = {
      messages: this.#messages,
      rings: new RingMessages(this.#session),
      migration: this.#migration,
    };
    const { rings } = this.#session;
    rings.onUsed = (ring) => this.#tellOfRing(BackEndRequest.VRING_CALL, ring, ring.call);
    rings.onError = (ring) => this.#tellOfRing(BackEndRequest.VRING_ERR, ring, ring.error);
    this.#held = new HeldSession(this.#session, this.#messages, this.#migration);
    if (options.earlier === undefined) return;
    const problem = this.#held.takeOver(options.earlier);
    this.#served++;
    if (problem !== undefined) this.#violation(problem);
  }

  /** Guest memory as this front end handed it over. */
  get memory(): GuestMemory {
    return this.#session.memory;
  }

  /** The descriptors that the session has open, as `Descriptor.heldAs` numbers them; 0 for one that has no number. */
  get heldNumbers(): readonly number[] {
    return this.#held.openNumbers;
  }

  /** Whether the session goes on. */
  get isOpen(): boolean {
    return this.#open;
  }

  /**
   * The connection's descriptor, -1 once closed and while messages wait: call {@linkcode onReadable} when
   * {@linkcode events} occur on it.
   */
  get descriptor(): number {
    if (this.#waits && !this.#connection.hasUnsent) return -1;
    const { stream } = this.#connection;
    return stream.pollNumber ?? stream.descriptor.number;
  }

  /** Whether it is time to call {@linkcode onReadable} though no descriptor says so. */
  get isDue(): boolean {
    if (this.#unanswered !== undefined) return !this.#session.device.messagesWait;
    return this.#connection.stream.isDue === true && !this.#waits;
  }

  /** The threads of the front end, where they can be seen; the caller's to close. */
  findPeerThreads(): PeerThreads | undefined {
    return PeerThreads.of(this.#connection.stream);
  }

  /** What to poll the connection for: `POLLIN`, or `POLLOUT` while a reply waits for room. */
  get events(): number {
    return this.#connection.hasUnsent ? POLLOUT : POLLIN;
  }

  /** A second descriptor to call {@linkcode onReadable} for, while the device's state is on its way; else -1. */
  get transferDescriptor(): number {
    return this.#migration.transfer?.descriptor ?? -1;
  }

  /** What to poll that for. */
  get transferEvents(): number {
    return this.#migration.transfer?.events ?? 0;
  }

  /** Changes whenever a queue, a descriptor or the events may have: look at them anew then. */
  get generation(): number {
    return this.#served + this.#session.rings.generation;
  }

  /** Whether the front end has ever sent a whole message. */
  get hasSpoken(): boolean {
    return this.#served > 0;
  }

  /** A queue that runs and is in memory, or `undefined`. */
  queue(index: number): Queue | undefined {
    // A ring that a message starts is not served before a process that takes over would know of it.
    if (this.#unanswered !== undefined && this.#held.isHeld) return undefined;
    return this.#session.rings.rings[index]?.running;
  }

  /** Where the front end has placed a ring's descriptors, in the queue's space; `undefined` for nowhere. */
  ringAddress(index: number): Address | undefined {
    return this.#session.rings.rings[index]?.addresses?.descriptors;
  }

  /** What the driver signals for a running queue; -1 if it does not run, or nothing is signalled. */
  kickDescriptor(index: number): number {
    const ring = this.#session.rings.rings[index];
    if (ring?.running === undefined || ring.kick === undefined || ring.kick.isEndless) return -1;
    return ring.kick.descriptor.number;
  }

  /** Whether a running queue has to be looked at from time to time, because new requests are not signalled. */
  wantsPolling(index: number): boolean {
    const ring = this.#session.rings.rings[index];
    if (ring?.running === undefined) return false;
    return ring.kick === undefined ? ring.polls : ring.kick.isEndless;
  }

  /** Takes back the signals on a kick descriptor that was ready. One that always is, is not used any more. */
  drainKick(index: number): void {
    const kick = this.#session.rings.rings[index]?.kick;
    if (kick === undefined) return;
    kick.drain();
    if (!kick.isEndless) return;
    this.#log.warnLimited("kick", `The kick of queue ${index} has no end: the queue is polled`);
  }

  /** Signals the driver if, after what was published, it wants to be. Call once after publishing. */
  signal(index: number): void {
    const ring = this.#session.rings.rings[index];
    if (ring?.running?.needsSignal()) this.#tellOfRing(BackEndRequest.VRING_CALL, ring, ring.call);
  }

  /** Stops a queue that reported an error, or suspends it until its memory is back, and tells log and front end. */
  ringFailed(index: number): void {
    const { rings } = this.#session;
    const ring = rings.rings[index];
    if (ring !== undefined) rings.fail(ring);
  }

  /** Tells the front end that the config space has changed, if it has given a way to. */
  configChanged(): void {
    this.#tell(BackEndRequest.CONFIG_CHANGE, new Uint8Array(0));
  }

  /**
   * Serves the messages that are there, and sends what waited. Of very many messages, it serves a burst and
   * leaves the rest for the next call; while the device is busy, it serves none.
   *
   * @returns whether the session goes on; if not, everything of it is closed already.
   */
  onReadable(): boolean {
    if (!this.#open) return false;
    try {
      return this.#serveAll();
    } catch (error) {
      // The host refused something on the session's behalf; other sessions may fare better.
      if (error instanceof OsError) return this.#violation(error.message);
      throw error;
    }
  }

  /**
   * Ends the session: queues stop, memory is unmapped, descriptors are closed, the device is told. Does nothing the
   * second time.
   */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    const { device, rings, table } = this.#session;
    // Where the host fails one step, the others are taken all the same: memory must not stay mapped.
    inTurn([
      () => device.sessionEnds?.(),
      () => rings.close(),
      () => this.#migration.close(),
      () => this.#messages.closeRequests(),
      () => table.clear(),
      () => this.#connection.close(),
      () => this.#tellDevice(device),
    ]);
  }

  #tellDevice(device: VirtioDevice): void {
    if (device.disconnected === undefined) return device.reset("system");
    const line = device.disconnected();
    if (line !== undefined) this.#log.info(line);
  }

  /** Whether messages have to wait. */
  get #waits(): boolean {
    return this.#session.device.messagesWait === true ||
      this.#migration.transfer?.isMoving === true;
  }

  #serveAll(): boolean {
    const connection = this.#connection;
    if (truncations() !== this.#truncations) {
      this.#truncations = truncations();
      this.#log.warnLimited(
        "truncated",
        "A front end has truncated memory that it had handed over",
      );
    }
    this.#migration.transfer?.progress();
    if (!connection.flush()) return this.#end("The front end is gone");
    if (this.isDue) this.#answer();
    const end = performance.now() + BURST_MS;
    for (let i = 0; i < BURST && this.#open && !connection.hasUnsent; i++) {
      if (this.#waits || (i > 0 && performance.now() >= end)) break;
      const result = connection.read();
      if (result === "nothing") return true;
      if (result === "closed") return this.#end("The front end has closed the connection");
      if (result instanceof ProtocolError) return this.#violation(result.message);
      this.#serve();
    }
    return this.#open;
  }

  /** Serves the message just read. */
  #serve(): void {
    const { request, flags } = this.#connection;
    const message = servedMessage(request);
    const asksReply = (flags & FLAG_NEED_REPLY) !== 0 && message?.replies !== true;
    const wasAgreed = this.#session.agreed(ProtocolFeature.REPLY_ACK);
    const refusal = this.#misfit(message) ?? message?.serve(this.#handlers);
    // The very message that agrees on REPLY_ACK is acknowledged, too.
    const wantsReply = asksReply &&
      (wasAgreed || this.#session.agreed(ProtocolFeature.REPLY_ACK));
    const misplaced = this.#session.rings.takeMisplaced();
    closeAll(this.#connection.descriptors);
    this.#served++;
    if (this.#log.enabled("debug")) {
      this.#log.debug(`${requestName(request)}: ${refusal ?? "done"}`);
    }
    this.#unanswered = { refusal, wantsReply, misplaced };
    if (!this.#session.device.messagesWait) this.#answer();
  }

  /** Answers the message last served. */
  #answer(): void {
    if (this.#unanswered === undefined) return;
    const { wantsReply } = this.#unanswered;
    const { rings, device } = this.#session;
    const refusal = this.#unanswered.refusal ?? rings.startDelayed();
    const misplaced = rings.takeMisplaced() || this.#unanswered.misplaced;
    this.#unanswered = { refusal, wantsReply, misplaced };
    if (device.messagesWait) return;
    this.#unanswered = undefined;
    const { request } = this.#connection;
    if (refusal === undefined) {
      if (wantsReply) this.#session.reply64(DONE, 0);
      this.#held.commit();
      return;
    }
    const line = `${requestName(request)} refused: ${refusal}`;
    if (this.#messages.mustEnd || (!wantsReply && !misplaced)) {
      this.#violation(line);
      return;
    }
    this.#log.warnLimited("refused", line);
    if (wantsReply) this.#session.reply64(FAILED, 0);
    this.#held.commit();
  }

  /** What is wrong with a message's form, whatever it says. */
  #misfit(message: ServedMessage | undefined): Refusal {
    const { size, flags, descriptors } = this.#connection;
    if ((flags & FLAG_REPLY) !== 0) return "it is marked as a reply";
    if (message === undefined) return "this device does not know it";
    const { least, most = least, descriptors: mostDescriptors = 0, needs = 0 } = message;
    if (size < least || size > most) {
      return `its size is ${size}, not ${least === most ? least : `${least} to ${most}`}`;
    }
    if (descriptors.length > mostDescriptors) {
      return `${descriptors.length} descriptors came, at most ${mostDescriptors} belong to it`;
    }
    if (needs !== 0 && !this.#session.agreed(needs)) return "its protocol feature is not agreed";
    return undefined;
  }

  /** Signals a ring's event, or sends it as a message where messages take the place of descriptors. */
  #tellOfRing(request: number, ring: Ring, event: Event | undefined): void {
    if (event !== undefined) {
      event.signal();
      return;
    }
    if (!this.#session.agreed(ProtocolFeature.INBAND_NOTIFICATIONS)) return;
    const payload = new Uint8Array(8);
    new DataView(payload.buffer).setUint32(0, ring.index, true);
    this.#tell(request, payload);
  }

  /** Sends a message of our own. The channel holds thousands; it is closed if the front end reads none until it is full. */
  #tell(request: number, payload: Uint8Array): void {
    const { requests } = this.#messages;
    if (requests === undefined) return;
    const alive = requests.send(request, 0, payload);
    if (alive && !requests.hasUnsent) return;
    if (alive) {
      this.#log.warnLimited("requests", "The front end does not read its channel, which is closed");
    }
    this.#messages.closeRequests();
  }

  #violation(line: string): boolean {
    this.#log.warnLimited("protocol", `${line}; connection closed`);
    this.close();
    return false;
  }

  #end(line: string): boolean {
    this.#log.debug(line);
    this.close();
    return false;
  }
}

/** Takes every step, and throws what the first that fails has thrown. */
function inTurn(steps: readonly (() => void)[]): void {
  let failure: { readonly error: unknown } | undefined;
  for (const step of steps) {
    try {
      step();
    } catch (error) {
      failure ??= { error };
    }
  }
  if (failure !== undefined) throw failure.error;
}
