/**
 * A back end of the library's own making behind a relay, as any other program's would be: it answers each request with
 * the request's bytes, changed, and can look at all the memory that it was given.
 *
 * @module
 */
import { PollSet, type UnixListener, type UnixStream } from "../../../../device/host/mod.ts";
import { Log } from "../../../../device/log.ts";
import { BackEnd } from "../../../../device/vhost_user/mod.ts";
import type { VirtioDevice } from "../../../../device/virtio_device.ts";
import { Chain, type Queue } from "../../../../vring/mod.ts";

/** What is added to each byte. */
export const CHANGE = 1;

/** How an echo differs from the usual one. */
export interface EchoOptions {
  /** Queues; 2 by default. */
  readonly queues?: number;
  /** The config space; `viommu` by default. */
  readonly config?: Uint8Array;
  /** Device features 0–31. */
  readonly featuresLow?: number;
  /** Whether requests are kept until {@linkcode EchoBackEnd.answerAll}. */
  readonly holds?: boolean;
}

/** A request that was kept. */
interface Held {
  readonly index: number;
  readonly chain: Chain;
}

/** The device. */
class EchoDevice implements VirtioDevice {
  readonly deviceId = 0;
  readonly featuresLow: number;
  readonly featuresHigh = 0;
  readonly queueCount: number;
  readonly queueSizeMax = 1024;
  readonly config: Uint8Array;
  /** Resets so far. */
  resets = 0;
  agreedLow = 0;
  /** Called when a queue stops. */
  onStopped: (index: number) => void = () => {};

  constructor(options: EchoOptions) {
    this.queueCount = options.queues ?? 2;
    this.config = options.config ?? new TextEncoder().encode("viommu");
    this.featuresLow = options.featuresLow ?? 0x3;
  }

  get configSize(): number {
    return this.config.length;
  }

  readConfig(target: Uint8Array, offset: number): void {
    target.set(this.config.subarray(offset, offset + target.length));
  }

  writeConfig(bytes: Uint8Array, offset: number): void {
    this.config.set(bytes, offset);
  }

  featuresAgreed(low: number, _high: number): void {
    this.agreedLow = low;
  }

  memoryAdded(): void {}
  memoryRemoved(): void {}
  reset(): void {
    this.resets++;
  }
  queueStarted(): void {}
  queueStopped(index: number): void {
    this.onStopped(index);
  }
}

/** One session of the back end. */
export class EchoBackEnd implements AsyncDisposable {
  readonly device: EchoDevice;
  readonly backEnd: BackEnd;
  /** Requests as they were read, in order. */
  readonly seen: Uint8Array[] = [];
  /** Requests that were kept. */
  readonly held: Held[] = [];
  /** Whether requests are kept. */
  holds: boolean;
  readonly #poll = new PollSet(4);
  readonly #done: Promise<void>;
  #stopped = false;
  #paused: Promise<void> | undefined;
  #resume: () => void = () => {};

  constructor(stream: UnixStream, options: EchoOptions = {}) {
    this.device = new EchoDevice(options);
    this.holds = options.holds ?? false;
    this.backEnd = new BackEnd(stream, this.device, { log: new Log("error") });
    // A ring that has stopped is not touched any more.
    this.device.onStopped = (index) => {
      const rest = this.held.filter((each) => each.index !== index);
      this.held.splice(0, this.held.length, ...rest);
    };
    this.#done = this.#run();
  }

  /** Waits at a path for the relay to connect. */
  static async accept(listener: UnixListener, options: EchoOptions = {}): Promise<EchoBackEnd> {
    using poll = new PollSet(1);
    poll.add(listener.descriptor.number);
    while (true) {
      await poll.wait(10_000);
      const stream = listener.accept();
      if (stream !== undefined) return new EchoBackEnd(stream, options);
    }
  }

  /** All memory that it was given. */
  get memory(): readonly Uint8Array[] {
    return this.backEnd.memory.regions.map(({ buffer, offset, size }) =>
      new Uint8Array(buffer, offset, size)
    );
  }

  /** Answers what was kept, the last first, and keeps no more. */
  answerAll(): void {
    this.holds = false;
    for (const { index, chain } of this.held.splice(0).reverse()) {
      const queue = this.backEnd.queue(index);
      if (queue === undefined) continue;
      answer(queue, chain);
      queue.publish();
      this.backEnd.signal(index);
    }
  }

  /** Answers the last one that was kept, and goes on keeping. */
  answerLast(): void {
    const last = this.held.pop();
    const queue = last === undefined ? undefined : this.backEnd.queue(last.index);
    if (last === undefined || queue === undefined) return;
    answer(queue, last.chain);
    queue.publish();
    this.backEnd.signal(last.index);
  }

  /** Does nothing from now on, as a process that is stopped, until what it returns is called. */
  pause(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#paused = promise;
    this.#resume = resolve;
    return resolve;
  }

  /** Makes the loop look once more. */
  wake(): void {
    this.#poll.wake();
  }

  /** Closes the connection, without an answer to anything. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    this.#resume();
    this.#poll.wake();
    await this.#done;
  }

  /** Ends when the other side has closed the connection. */
  get closed(): Promise<void> {
    return this.#done;
  }

  async #run(): Promise<void> {
    const poll = this.#poll;
    const { backEnd, device } = this;
    while (backEnd.isOpen && !this.#stopped) {
      poll.clear();
      const connection = poll.add(backEnd.descriptor, backEnd.events);
      const kicks = Array.from(
        { length: device.queueCount },
        (_, i) => poll.add(backEnd.kickDescriptor(i)),
      );
      await poll.wait();
      await this.#paused;
      kicks.forEach((slot, i) => {
        if (poll.ready(slot) !== 0) backEnd.drainKick(i);
      });
      if (poll.ready(connection) !== 0 && !backEnd.onReadable()) break;
      for (let i = 0; i < device.queueCount; i++) this.#serve(i);
    }
    backEnd.close();
    poll.close();
  }

  #serve(index: number): void {
    const queue = this.backEnd.queue(index);
    if (queue === undefined) return;
    do {
      while (true) {
        const chain = new Chain(4);
        if (!queue.next(chain)) break;
        const bytes = new Uint8Array(chain.readableLength);
        chain.gather(bytes);
        this.seen.push(bytes);
        if (this.holds) this.held.push({ index, chain });
        else answer(queue, chain);
      }
      queue.publish();
      this.backEnd.signal(index);
    } while (queue.enableNotifications());
    if (queue.error !== 0) throw new Error(queue.describeError());
  }
}

/** Gives the request's bytes back, each changed, as far as there is room. */
function answer(queue: Queue, chain: Chain): void {
  const bytes = new Uint8Array(Math.min(chain.readableLength, chain.writableLength));
  chain.gather(bytes);
  for (let i = 0; i < bytes.length; i++) bytes[i] += CHANGE;
  queue.complete(chain, chain.scatter(0, bytes));
}
