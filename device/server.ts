/**
 * Serves a device to one VMM after another.
 *
 * @module
 */
import type { Companion } from "./companion.ts";
import { OsError, PollSet, type UnixListener, UnixStream } from "./host/mod.ts";
import type { IommuDevice } from "./iommu_device.ts";
import type { Log } from "./log.ts";
import { DeviceLoop } from "./loop.ts";
import { ALL_RING_FEATURES, BackEnd, type RingFeatures } from "./vhost_user/mod.ts";

/** Milliseconds between two attempts to connect. */
const RECONNECT_MS = 200;

/** A device on a socket. */
export class DeviceServer {
  readonly #device: IommuDevice;
  readonly #log: Log;
  readonly #poll: PollSet = new PollSet();
  readonly #loop: DeviceLoop;
  readonly #companions: readonly Companion[];
  readonly #ringFeatures: RingFeatures;
  #stopped = false;
  #connected = false;

  /**
   * A server of a device.
   *
   * @param watchMicroseconds How long to watch the rings after a request before sleeping.
   * @param companions What is served beside the device, with or without a front end of the device's own.
   * @param ringFeatures Which features of rings front ends are offered.
   */
  constructor(
    device: IommuDevice,
    log: Log,
    watchMicroseconds: number,
    companions: readonly Companion[] = [],
    ringFeatures: RingFeatures = ALL_RING_FEATURES,
  ) {
    this.#device = device;
    this.#log = log;
    this.#companions = companions;
    this.#ringFeatures = ringFeatures;
    this.#loop = new DeviceLoop(device, this.#poll, log, watchMicroseconds, companions);
    // A fault may come while the loop sleeps; its report must not wait for the guest's next request.
    device.onFault = () => this.wake();
  }

  /** Whether a front end is connected. */
  get connected(): boolean {
    return this.#connected;
  }

  /** Ends a sleep: there is something to serve that no descriptor tells of. */
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
   * goes. The socket and the companions are closed afterwards.
   */
  async run(socket: UnixListener | UnixStream): Promise<void> {
    try {
      if (socket instanceof UnixStream) await this.#serve(socket, undefined);
      else await this.#acceptAll(socket);
    } finally {
      socket.close();
      for (const companion of this.#companions) companion.close();
      this.#poll.close();
    }
  }

  /**
   * Serves until stopped as a client: connects to a front end that listens, again whenever it has gone.
   *
   * @param path The front end's socket; waits until somebody listens there.
   */
  async runClient(path: string): Promise<void> {
    let isTold = false;
    try {
      while (!this.#stopped) {
        const stream = connectOrNothing(path);
        if (stream !== undefined) {
          isTold = false;
          await this.#serve(stream, undefined);
          continue;
        }
        if (!isTold) this.#log.info(`Waiting for a front end to listen on ${path}`);
        isTold = true;
        await this.#loop.serveCompanions(-1, RECONNECT_MS);
      }
    } finally {
      for (const companion of this.#companions) companion.close();
      this.#poll.close();
    }
  }

  async #acceptAll(listener: UnixListener): Promise<void> {
    while (!this.#stopped) {
      await this.#loop.serveCompanions(listener.descriptor.number);
      if (this.#stopped) return;
      const stream = listener.accept();
      if (stream !== undefined) await this.#serve(stream, listener);
    }
  }

  async #serve(stream: UnixStream, listener: UnixListener | undefined): Promise<void> {
    const backEnd = new BackEnd(stream, this.#device, {
      log: this.#log,
      ringFeatures: this.#ringFeatures,
    });
    this.#connected = true;
    this.#log.info("A front end connected");
    try {
      await this.#loop.serve(backEnd, listener?.descriptor.number ?? -1, () => {
        listener?.accept()?.close();
        this.#log.warnLimited("second", "Refused a second front end: one is connected already");
      });
    } finally {
      backEnd.close();
      this.#connected = false;
    }
    this.#log.info(this.#stopped ? "Stopped" : "The front end is gone");
  }
}

/** Connects, if somebody listens. */
function connectOrNothing(path: string): UnixStream | undefined {
  try {
    return UnixStream.connect(path);
  } catch (error) {
    if (error instanceof OsError && NOBODY_LISTENS.includes(error.code)) return undefined;
    throw error;
  }
}

/** What connecting fails with while the front end is not there yet. */
const NOBODY_LISTENS = ["ENOENT", "ECONNREFUSED"];
