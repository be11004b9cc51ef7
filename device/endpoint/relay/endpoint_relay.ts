/**
 * A relayed endpoint: a vhost-user back end of another program behind the IOMMU, which gets none of the guest's memory.
 *
 * The VMM's side is that of our own devices (`endpoint_service.ts`). The back end's side is one session after another.
 * The relay connects, or accepts a connection, as soon as it can, since only the back end knows what the device is;
 * until then VMMs wait. When a back end disconnects or is cut off, the guest's requests wait for the next one. When
 * the VMM disconnects, the back end is disconnected as well, so that nothing of one machine reaches the next.
 */
import { endpointText, PAGE_SIZE } from "../../address.ts";
import type { PollSet, UnixListener, UnixStream } from "../../host/mod.ts";
import type { IommuDevice } from "../../iommu/iommu_device.ts";
import type { Log } from "../../log.ts";
import { ringFeatures } from "../../vhost_user/mod.ts";
import { BackEndSocket } from "../back_end_socket.ts";
import type { Draining } from "../endpoint_device.ts";
import { EndpointService } from "../endpoint_service.ts";
import type { ServedEndpoint } from "../served_endpoint.ts";
import { BackEndSession } from "./back_end_session.ts";
import { RelayCounters } from "./relay_counters.ts";
import { RelayDevice } from "./relay_device.ts";
import { withheldNames } from "./relayed_features.ts";
import type { RelayedType } from "./relayed_types.ts";

/** Milliseconds before another back end is tried, unless the options say otherwise. */
const RETRY_MS = 100;
/**
 * Features of the guest's rings. IN_ORDER is left out: a back end completes requests in any order, and a slow one would
 * delay all others.
 */
const RINGS = ringFeatures(["packed", "event-index", "indirect"])!;

/** Options of an {@linkcode EndpointRelay}. */
export interface EndpointRelayOptions {
  /** Translates for the endpoint. */
  readonly iommu: IommuDevice;
  /** The endpoint's id. */
  readonly endpoint: number;
  /** The socket that the VMM connects to; closed with the relay. */
  readonly listener: UnixListener;
  /** The back end: a path that it listens on, or a listener that it connects to, which is closed with the relay. */
  readonly backEnd: string | UnixListener;
  /** The type of the device, which the user states. */
  readonly type: RelayedType;
  /** Bytes for buffers; whole pages. */
  readonly bufferBytes: number;
  /** Milliseconds within which the back end has to answer a message. */
  readonly patience: number;
  /** Milliseconds before another back end is tried; 100 by default. */
  readonly retryMs?: number;
  /** The log. */
  readonly log: Log;
}

/** A relayed endpoint. */
export class EndpointRelay implements ServedEndpoint {
  /** The endpoint's id. */
  readonly endpoint: number;
  /** What it has done. */
  readonly counters: RelayCounters = new RelayCounters();
  /** Its name in log lines. */
  readonly name: string;
  /** Serves the device to the VMM. */
  readonly service: EndpointService;
  /** Called when it has to be served although no descriptor is ready. */
  onDue: () => void = () => {};
  readonly #options: EndpointRelayOptions;
  readonly #backEndSocket: BackEndSocket;
  /** The device that the guest sees. */
  readonly #device: RelayDevice;
  #session: BackEndSession | undefined;
  #isReplacement = false;
  /** Whether the service was added to the poll set. */
  #isServed = false;
  #backEndSlot = -1;

  /** Waits for both sides once a loop serves it. */
  constructor(options: EndpointRelayOptions) {
    const { iommu, endpoint, listener, type, bufferBytes, log } = options;
    this.endpoint = endpoint;
    this.#options = options;
    this.name = `relay ${endpointText(endpoint)}`;
    this.#device = new RelayDevice({
      type,
      bufferBytes,
      name: this.name,
      log,
      counters: this.counters,
    });
    this.service = new EndpointService({
      iommu,
      endpoint,
      device: this.#device,
      listener,
      log,
      ringFeatures: RINGS,
      onGone: () => this.#frontEndGone(),
    });
    this.service.onDue = () => this.onDue();
    this.#backEndSocket = new BackEndSocket({
      place: options.backEnd,
      retryMs: options.retryMs ?? RETRY_MS,
      name: this.name,
      log,
      onDue: () => this.onDue(),
    });
  }

  get kind(): string {
    return this.#device.type;
  }

  /** Whether a front end is connected. */
  get connected(): boolean {
    return this.service.connected;
  }

  get listen(): string {
    return this.service.listen;
  }

  get backEnd(): string {
    return this.#backEndSocket.path;
  }

  get isLeaving(): boolean {
    return this.service.isLeaving;
  }

  /** Whether a back end is connected and identified. */
  get hasBackEnd(): boolean {
    return this.#session?.identity !== undefined;
  }

  /** Bytes of buffers: in use, the most in use so far, and all. */
  get pool(): { readonly used: number; readonly peak: number; readonly size: number } {
    const pool = this.#session?.memory?.pool;
    const [used, peak] = [pool?.used ?? 0, pool?.peak ?? 0];
    return { used: used * PAGE_SIZE, peak: peak * PAGE_SIZE, size: this.#options.bufferBytes };
  }

  /** Whether the front end must be polled, a time limit runs, or a session has ended: no descriptor signals these. */
  get mustPoll(): boolean {
    const session = this.#session;
    return this.service.mustPoll || session?.isWaiting === true || session?.ended !== undefined;
  }

  addTo(poll: PollSet): void {
    const stream = this.#session === undefined ? this.#backEndSocket.connect() : undefined;
    if (stream !== undefined) this.#beginSession(stream);
    this.#backEndSlot = poll.add(this.#backEndSocket.pollNumber);
    this.#session?.addTo(poll);
    this.#isServed = this.#device.isKnown &&
      (this.service.connected || this.#session?.identity !== undefined);
    if (this.#isServed) this.service.addTo(poll);
  }

  look(poll: PollSet): void {
    const backEndPending = poll.ready(this.#backEndSlot) !== 0;
    this.#session?.look(poll);
    this.#checkSession();
    if (backEndPending) this.#accept();
    if (this.#isServed) this.service.look(poll);
    this.#checkSession();
  }

  serve(): boolean {
    const isAny = this.service.serve();
    this.#checkSession();
    return isAny;
  }

  setNotifications(on: boolean): boolean {
    const hasRequests = this.service.setNotifications(on);
    return this.#device.setSignals(on, (index) => this.service.serves(index)) || hasRequests;
  }

  /** Ends the sessions with both sides: either may have failed. */
  endSession(): void {
    try {
      this.service.endSession();
    } finally {
      this.#endSession("something failed on its behalf");
    }
  }

  /** Takes no more requests, and connects to no other back end. */
  leave(): Draining {
    this.#backEndSocket.close();
    return this.service.leave();
  }

  /** Ends both sides and the sockets. */
  close(): void {
    this.#backEndSocket.close();
    this.#endSession("closed");
    this.service.close();
  }

  #accept(): void {
    const stream = this.#backEndSocket.accept();
    if (stream === undefined) return;
    if (this.#session === undefined) {
      this.#beginSession(stream);
      return;
    }
    stream.close();
    this.#options.log.warnLimited("second", `Refused a second back end of ${this.name}`);
  }

  #beginSession(stream: UnixStream): void {
    const { type, bufferBytes, patience, log } = this.#options;
    const session: BackEndSession = new BackEndSession({
      stream,
      type,
      bufferBytes,
      patience,
      counters: this.counters,
      onIdentity: () => this.#identified(session),
      onConfig: () => this.#takeConfig(session),
      onOddity: (line) => log.warnLimited("relay-oddity", `${this.name}: ${line}`),
    });
    this.#session = session;
  }

  /** The back end is identified. */
  #identified(session: BackEndSession): void {
    const { type, log } = this.#options;
    const { counters } = this;
    const identity = session.identity!;
    const refusal = this.#device.admit(session, this.service.connected);
    if (refusal !== undefined) {
      session.identity = undefined;
      session.violation(refusal);
      return;
    }
    // A disk, for example, may have another size than before.
    this.#takeConfig(session);
    counters.sessions++;
    if (this.#isReplacement) counters.reconnects++;
    this.#isReplacement = false;
    const withheld = withheldNames(identity.features, identity.offeredProtocol, type);
    log.info(
      `The back end of ${this.name} is connected: ${identity.queueCount} queues, ` +
        `${identity.config.length} bytes of config space` +
        (withheld.length === 0 ? "" : `; not passed on: ${withheld.join(", ")}`),
    );
    // VMMs may be waiting for this.
    this.onDue();
  }

  #takeConfig(session: BackEndSession): void {
    if (this.#device.takeConfig(session)) this.service.configChanged();
  }

  #checkSession(): void {
    if (this.#session?.ended !== undefined) this.#endSession(this.#session.ended);
  }

  /** The back end has disconnected or is cut off: requests wait for the next one. */
  #endSession(reason: string): void {
    const session = this.#session;
    if (session === undefined) return;
    this.#session = undefined;
    this.#isReplacement ||= this.#device.isInUse && session.identity !== undefined;
    this.#device.backEndGone();
    session.close();
    this.#options.log.warnLimited(
      "relay",
      `The session with the back end of ${this.name} is over: ${reason}`,
    );
    this.#backEndSocket.tryLater();
  }

  #frontEndGone(): void {
    const wasInUse = this.#device.isInUse;
    this.#device.forget();
    if (!wasInUse || this.#session === undefined) return;
    const session = this.#session;
    this.#session = undefined;
    this.#device.backEndGone();
    session.close();
    this.#options.log.info(
      `The back end of ${this.name} is disconnected, as its front end is gone`,
    );
    this.#isReplacement = false;
    this.#backEndSocket.tryLater();
  }
}
