import type { PollSource } from "../poll_source.ts";
import { failuresOf, GuardedPollSource, logFailure } from "../guarded_poll_source.ts";
import { connectProblem, OsError, PollSet, type UnixListener, UnixStream } from "../host/mod.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import type { Log } from "../log.ts";
import { DeviceLoop } from "./loop.ts";
import type { ServiceTimes } from "../service_times.ts";
import { PeerClaim } from "../host/peer_claim.ts";
import { ALL_RING_FEATURES, BackEnd, type RingFeatures } from "../vhost_user/mod.ts";

/** Milliseconds between two attempts to connect. */
const RECONNECT_MS = 200;
/** A session of at least so many milliseconds may be followed by the next at once. */
const SESSION_MS = 1000;

/** A device on a socket, served to one VMM after another. */
export class DeviceServer {
  readonly #device: IommuDevice;
  readonly #log: Log;
  readonly #poll: PollSet = new PollSet();
  readonly #loop: DeviceLoop;
  readonly #pollSources: readonly GuardedPollSource[];
  readonly #ringFeatures: RingFeatures;
  #stopped = false;
  #connected = false;
  /** A front end that replaces the one that is connected. */
  #next: UnixStream | undefined;
  #failures = 0;
  /** Called when a front end has connected, and without a stream when it has gone. */
  onFrontEnd: (stream: UnixStream | undefined) => void = () => {};

  /**
   * A server of a device.
   *
   * @param pollMicroseconds How long to poll the rings after a request at most, before sleeping; 0 to sleep at once.
   * @param pollSources What is served besides the device, with or without a front end of the device's own.
   * @param ringFeatures The ring features that front ends are offered.
   */
  constructor(
    device: IommuDevice,
    log: Log,
    pollMicroseconds: number,
    pollSources: readonly PollSource[] = [],
    ringFeatures: RingFeatures = ALL_RING_FEATURES,
  ) {
    this.#device = device;
    this.#log = log;
    this.#pollSources = pollSources.map((each) => new GuardedPollSource(each, log));
    this.#ringFeatures = ringFeatures;
    this.#loop = new DeviceLoop(device, this.#poll, log, pollMicroseconds, this.#pollSources);
    for (const each of this.#pollSources) each.onDue = () => this.wake();
    this.#poll.onProblem = (line) => log.warnLimited("poll", line);
    // A fault may come while the loop sleeps; its report must not wait for the guest's next request.
    device.onFault = () => this.wake();
  }

  /** How long requests of guests took. */
  get times(): ServiceTimes {
    return this.#loop.times;
  }

  /** Whether a front end is connected. */
  get connected(): boolean {
    return this.#connected;
  }

  /**
   * Sessions that were ended because something failed: the device's own, as `iommu`, and those of its poll sources, by
   * name. Those without failures are left out.
   */
  get failures(): Readonly<Record<string, number>> {
    return failuresOf(this.#failures, this.#pollSources);
  }

  /** Ends a sleep: there is something to serve that no descriptor signals. */
  wake(): void {
    this.#poll.wake();
  }

  /** Ends {@linkcode run} promptly. */
  stop(): void {
    this.#stopped = true;
    this.#loop.stop();
  }

  /**
   * Serves until stopped: every front end that connects to a listener, or the one behind a stream until it
   * goes. The socket and the poll sources are closed afterwards.
   */
  async run(socket: UnixListener | UnixStream): Promise<void> {
    try {
      if (socket instanceof UnixStream) await this.#serve(socket, undefined);
      else await this.#acceptAll(socket);
    } finally {
      this.#next?.end();
      socket.close();
      for (const pollSource of this.#pollSources) pollSource.close();
      this.#poll.close();
    }
  }

  /**
   * Serves until stopped as a client: connects to a front end that listens, again whenever it has disconnected.
   *
   * @param path The front end's socket; waits until it listens.
   */
  async runClient(path: string): Promise<void> {
    let logged: string | undefined;
    try {
      while (!this.#stopped) {
        const begun = performance.now();
        const stream = UnixStream.tryConnect(path);
        // What is at the path is not ours: any failure may be over the next time.
        const problem = stream instanceof UnixStream ? undefined : connectProblem(stream);
        if (problem !== undefined && problem !== logged) {
          const line = `Waiting for a front end to listen on ${path}${problem}`;
          this.#log.infoLimited("waiting", line);
        }
        logged = problem;
        if (stream instanceof UnixStream) await this.#serve(stream, undefined);
        // A front end that accepts and closes at once must not keep this process busy.
        if (performance.now() - begun < SESSION_MS) {
          await this.#loop.servePollSources(undefined, RECONNECT_MS);
        }
      }
    } finally {
      for (const pollSource of this.#pollSources) pollSource.close();
      this.#poll.close();
    }
  }

  async #acceptAll(listener: UnixListener): Promise<void> {
    listener.onProblem = (line) => this.#log.warnLimited("accept", line);
    listener.onRested = () => this.wake();
    while (!this.#stopped) {
      if (this.#next === undefined) await this.#loop.servePollSources(listener);
      if (this.#stopped) return;
      const stream = this.#next ?? listener.accept();
      this.#next = undefined;
      if (stream !== undefined) await this.#serve(stream, listener);
    }
  }

  /** Serves a front end until it disconnects. An error of the host ends its session and nothing else. */
  async #serve(stream: UnixStream, listener: UnixListener | undefined): Promise<void> {
    const claim = new PeerClaim(stream);
    const backEnd = new BackEnd(stream, this.#device, {
      log: this.#log,
      ringFeatures: this.#ringFeatures,
    });
    this.#connected = true;
    this.#log.infoLimited("connected", "A front end connected");
    try {
      this.onFrontEnd(stream);
      await this.#loop.serve(backEnd, listener, () => {
        const other = listener?.accept();
        if (other !== undefined) this.#admit(other, backEnd, claim);
      });
    } catch (error) {
      if (!(error instanceof OsError)) throw error;
      this.#failures++;
      logFailure(this.#log, "The session is ended", error);
    } finally {
      claim.close();
      backEnd.close();
      this.#connected = false;
      this.onFrontEnd(undefined);
    }
    if (this.#stopped) this.#log.info("Stopped");
    else this.#log.infoLimited("gone", "The front end is gone");
  }

  /** Refuses a second front end, unless the first has lost its claim: then it is replaced. */
  #admit(stream: UnixStream, backEnd: BackEnd, claim: PeerClaim): void {
    const lost = claim.lost(backEnd.hasSpoken);
    if (lost === undefined) {
      stream.end();
      this.#log.warnLimited("second", "Refused a second front end: one is connected already");
      return;
    }
    this.#log.warnLimited("lost", `The front end is replaced by another one: ${lost}`);
    backEnd.close();
    this.#next = stream;
  }
}
