/**
 * A proxied endpoint: an unmodified vhost-user back end behind the IOMMU. The proxy is between the VMM's connection
 * and the back end's, and gives the back end the translations that the guest made for the endpoint.
 *
 * A session needs both sides. A VMM that connects first is not read before the back end is there, and a back end that
 * connects first waits likewise. When one side disconnects, the other is disconnected, and both may connect again: a
 * VMM that reconnects (QEMU's `reconnect-ms`) survives a restart of the back end.
 *
 * A back end that does not acknowledge an invalidation in time is disconnected, so that the guest is not kept waiting.
 * That ends the connection, not the back end's mapping of guest memory: no more can be done from here.
 */
import { endpointText } from "../../address.ts";
import type { PollSet, UnixListener, UnixStream } from "../../host/mod.ts";
import { logFailure } from "../../guarded_poll_source.ts";
import type { IommuDevice } from "../../iommu/iommu_device.ts";
import type { Log } from "../../log.ts";
import { PeerClaim } from "../../host/peer_claim.ts";
import type { RemoteIotlbListener } from "../../iommu/iotlb_listeners.ts";
import { BackEndSocket } from "../back_end_socket.ts";
import type { Draining } from "../endpoint_device.ts";
import type { ServedEndpoint } from "../served_endpoint.ts";
import { ProxyCounters } from "./proxy_counters.ts";
import { ProxySession } from "./proxy_session.ts";
import type { WriteOnly } from "./translated_run.ts";

/** Milliseconds between two attempts to connect to a back end. */
const RETRY_MS = 200;

/** Options of an {@linkcode EndpointProxy}. */
export interface EndpointProxyOptions {
  /** Translates for the endpoint. */
  readonly iommu: IommuDevice;
  /** The endpoint's id. */
  readonly endpoint: number;
  /** The socket that the VMM connects to; closed with the proxy. */
  readonly listener: UnixListener;
  /** The back end: a path that it listens on, or a listener that it connects to, which is closed with the proxy. */
  readonly backEnd: string | UnixListener;
  /** How write-only mappings are translated. */
  readonly writeOnly: WriteOnly;
  /** Time limit of an acknowledgement in milliseconds. */
  readonly patience: number;
  /** The log. */
  readonly log: Log;
}

/** A proxied endpoint. */
export class EndpointProxy implements ServedEndpoint, RemoteIotlbListener {
  /** The endpoint's id. */
  readonly endpoint: number;
  /** What it has done. */
  readonly counters: ProxyCounters = new ProxyCounters();
  onDue: () => void = () => {};
  /** Its name in log lines. */
  readonly name: string;
  readonly kind = "proxy";
  readonly #options: EndpointProxyOptions;
  readonly #backEndSocket: BackEndSocket;
  #frontEnd: UnixStream | undefined;
  /** The claim of the front end that waits, or has a session. */
  #claim: PeerClaim | undefined;
  #backEnd: UnixStream | undefined;
  #session: ProxySession | undefined;
  #slots = [-1, -1, -1, -1];
  #isLeaving = false;
  /** Whether the session has failed since the endpoint began to leave. */
  #isCutOff = false;

  /** Listens to the endpoint's IOTLB until {@linkcode close}; waits for both sides once a loop serves it. */
  constructor(options: EndpointProxyOptions) {
    this.endpoint = options.endpoint;
    this.#options = options;
    this.name = `proxy ${endpointText(options.endpoint)}`;
    options.iommu.iotlbListeners.addRemote(options.endpoint, this);
    const { listener, log } = options;
    listener.onProblem = (line) => log.warnLimited(`accept ${this.name}`, `${this.name}: ${line}`);
    listener.onRested = () => this.onDue();
    this.#backEndSocket = new BackEndSocket({
      place: options.backEnd,
      retryMs: RETRY_MS,
      name: this.name,
      log,
      onDue: () => this.onDue(),
    });
  }

  /** Whether both sides are connected. */
  get connected(): boolean {
    return this.#session !== undefined;
  }

  get listen(): string {
    return this.#options.listener.path ?? "";
  }

  get backEnd(): string {
    return this.#backEndSocket.path;
  }

  get isLeaving(): boolean {
    return this.#isLeaving;
  }

  /** Whether an acknowledgement is outstanding: no descriptor signals that its time limit is over. */
  get mustPoll(): boolean {
    return (this.#session?.iotlb.awaited ?? 0) > 0;
  }

  addTo(poll: PollSet): void {
    this.#slots = [
      poll.add(this.#options.listener.pollNumber),
      poll.add(this.#backEndSocket.pollNumber),
      // From a side that waits for the other, only a disconnect is expected.
      poll.add(this.#frontEnd?.descriptor.number ?? -1, 0),
      poll.add(this.#backEnd?.descriptor.number ?? -1, 0),
    ];
    this.#session?.addTo(poll);
  }

  look(poll: PollSet): void {
    const [frontEndPending, backEndPending, frontEndGone, backEndGone] = this.#slots.map((slot) =>
      poll.ready(slot)
    );
    // A session that has just ended leaves room for a pending connection.
    if (this.#session !== undefined) {
      this.#session.look(poll);
      this.#checkSession();
    }
    if (frontEndGone !== 0) this.#dropFrontEnd();
    if (backEndGone !== 0) {
      this.#backEnd?.end();
      this.#backEnd = undefined;
    }
    if (frontEndPending !== 0) this.#acceptFrontEnd();
    if (backEndPending !== 0) this.#acceptBackEnd();
    this.#begin();
  }

  serve(): boolean {
    return false;
  }

  setNotifications(_on: boolean): boolean {
    return false;
  }

  invalidate(firstPage: number, lastPage: number): void {
    try {
      this.#session?.iotlb.invalidate(firstPage, lastPage);
    } catch (error) {
      this.#failed(error);
    }
  }

  invalidateAll(): void {
    try {
      this.#session?.iotlb.invalidateAll();
    } catch (error) {
      this.#failed(error);
    }
  }

  mapped(firstPage: number, lastPage: number): void {
    try {
      this.#session?.iotlb.mapped(firstPage, lastPage);
    } catch (error) {
      this.#failed(error);
    }
  }

  /** Ends the session, and disconnects a side that waits for the other. */
  endSession(): void {
    const session = this.#session;
    this.#session = undefined;
    session?.close();
    this.#dropFrontEnd();
    this.#backEnd?.end();
    this.#backEnd = undefined;
  }

  /**
   * Requests pass between the guest and the back end directly, so it is not known here which are under way; the back
   * end has to drop its translations, and cannot access memory after that.
   */
  leave(): Draining {
    if (!this.#isLeaving) {
      this.#isLeaving = true;
      this.#options.listener.close();
      this.#backEndSocket.close();
      this.#session?.iotlb.leave();
      // No back end will come.
      this.#dropFrontEnd();
    }
    if (this.#session === undefined) return this.#isCutOff ? "lost" : "drained";
    return this.#session.iotlb.awaited > 0 ? "under way" : "drained";
  }

  /** Ends the session, closes the sockets, and removes itself from the IOTLB listeners. */
  close(): void {
    this.endSession();
    this.#options.iommu.iotlbListeners.remove(this.endpoint, this);
    this.#options.listener.close();
    this.#backEndSocket.close();
  }

  /**
   * An IOTLB listener is called in the middle of a request to the IOMMU, which must not fail: a back end that cannot be
   * sent a message is disconnected.
   */
  #failed(error: unknown): void {
    logFailure(this.#options.log, `The session of ${this.name} is ended`, error);
    this.endSession();
  }

  #dropFrontEnd(): void {
    this.#claim?.close();
    this.#claim = undefined;
    this.#frontEnd?.end();
    this.#frontEnd = undefined;
  }

  #acceptFrontEnd(): void {
    const stream = this.#options.listener.accept();
    if (stream === undefined) return;
    const lost = this.#claim?.lost(this.#session?.hasSpoken ?? true);
    if (lost !== undefined) {
      this.#options.log.warnLimited("lost", `The front end of ${this.name} makes room: ${lost}`);
      this.#session?.close();
      this.#session = undefined;
      this.#dropFrontEnd();
    }
    if (this.#session === undefined && this.#frontEnd === undefined) {
      this.#frontEnd = stream;
      this.#claim = new PeerClaim(stream);
      this.#backEndSocket.tryNow();
      return;
    }
    stream.end();
    this.#options.log.warnLimited("second", `Refused a second front end of ${this.name}`);
  }

  #acceptBackEnd(): void {
    const stream = this.#backEndSocket.accept();
    if (stream === undefined) return;
    if (this.#session === undefined && this.#backEnd === undefined) {
      this.#backEnd = stream;
      return;
    }
    stream.end();
    this.#options.log.warnLimited("second", `Refused a second back end of ${this.name}`);
  }

  /** Begins a session if both sides are connected. */
  #begin(): void {
    if (this.#session !== undefined || this.#frontEnd === undefined) return;
    this.#backEnd ??= this.#backEndSocket.connect();
    if (this.#backEnd === undefined) return;
    const { iommu, endpoint, writeOnly, patience, log } = this.#options;
    this.#session = new ProxySession({
      iommu,
      endpoint,
      writeOnly,
      patience,
      log,
      counters: this.counters,
      name: this.name,
      frontEnd: this.#frontEnd,
      backEnd: this.#backEnd,
    });
    this.#frontEnd = undefined;
    this.#backEnd = undefined;
    this.counters.sessions++;
    log.infoLimited(
      `connected ${this.name}`,
      `A front end and the back end of ${this.name} are connected`,
    );
  }

  #checkSession(): void {
    const session = this.#session;
    if (session?.ended === undefined) return;
    this.#session = undefined;
    this.#isCutOff = this.#isLeaving && !session.isOrderly;
    this.#dropFrontEnd();
    const line = `The session of ${this.name} is over: ${session.ended}`;
    const { log } = this.#options;
    if (session.isOrderly) log.infoLimited(`over ${this.name}`, line);
    else log.warnLimited("proxy", line);
  }
}
