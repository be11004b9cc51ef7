/**
 * Serves a device to one VMM after another.
 *
 * @module
 */
import { PollSet, type UnixListener, UnixStream } from "./host/mod.ts";
import type { IommuDevice } from "./iommu_device.ts";
import type { Log } from "./log.ts";
import { DeviceLoop } from "./loop.ts";
import { BackEnd } from "./vhost_user/mod.ts";

/** A device on a socket. */
export class DeviceServer {
  readonly #device: IommuDevice;
  readonly #log: Log;
  readonly #poll: PollSet = new PollSet();
  readonly #loop: DeviceLoop;
  #stopped = false;
  #connected = false;

  /**
   * A server of a device.
   *
   * @param watchMicroseconds How long to watch the rings after a request before sleeping.
   */
  constructor(device: IommuDevice, log: Log, watchMicroseconds: number) {
    this.#device = device;
    this.#log = log;
    this.#loop = new DeviceLoop(device, this.#poll, log, watchMicroseconds);
    // A fault may come while the loop sleeps; its report must not wait for the guest's next request.
    device.onFault = () => this.#poll.wake();
  }

  /** Whether a front end is connected. */
  get connected(): boolean {
    return this.#connected;
  }

  /** Ends {@linkcode run} promptly. */
  stop(): void {
    this.#stopped = true;
    this.#loop.stop();
  }

  /**
   * Serves until stopped: every front end that connects to a listener, or the one behind a stream until it
   * goes. The socket is closed afterwards.
   */
  async run(socket: UnixListener | UnixStream): Promise<void> {
    try {
      if (socket instanceof UnixStream) await this.#serve(socket, undefined);
      else await this.#acceptAll(socket);
    } finally {
      socket.close();
      this.#poll.close();
    }
  }

  async #acceptAll(listener: UnixListener): Promise<void> {
    while (!this.#stopped) {
      this.#poll.clear();
      this.#poll.add(listener.descriptor.number);
      await this.#poll.wait();
      if (this.#stopped) return;
      const stream = listener.accept();
      if (stream !== undefined) await this.#serve(stream, listener);
    }
  }

  async #serve(stream: UnixStream, listener: UnixListener | undefined): Promise<void> {
    const backEnd = new BackEnd(stream, this.#device, { log: this.#log });
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
