/**
 * A back end in the test's own process: a real socket, a real loop on the event loop, and a device that
 * records what it is told and answers each request with its bytes reversed.
 *
 * @module
 */
import { POLLIN, PollSet, UnixStream } from "../../../device/host/mod.ts";
import { Log } from "../../../device/log.ts";
import {
  BackEnd,
  type BackEndOptions,
  FrontEnd,
  type FrontEndOptions,
} from "../../../device/vhost_user/mod.ts";
import type { ResetKind, VirtioDevice } from "../../../device/virtio_device.ts";
import { Chain, type MemoryRegion, type Queue } from "../../../vring/mod.ts";

/** A device that writes down what it is told. */
export class RecordingDevice implements VirtioDevice {
  /** See VirtioDevice. */
  readonly deviceId = 42;
  /** See VirtioDevice. */
  readonly featuresLow = 0b101;
  /** See VirtioDevice. */
  readonly featuresHigh = 0;
  /** See VirtioDevice. */
  readonly queueCount = 2;
  /** See VirtioDevice. */
  readonly queueSizeMax = 1024;
  /** The config space. */
  readonly config: Uint8Array = Uint8Array.from({ length: 40 }, (_, i) => i + 1);
  /** See VirtioDevice. */
  readonly configSize = 40;
  /** What happened, in order. */
  readonly events: string[] = [];
  /** Regions there are. */
  readonly regions: MemoryRegion[] = [];
  /** Running queues. */
  readonly queues: (Queue | undefined)[] = [];

  /** See VirtioDevice. */
  readConfig(target: Uint8Array, offset: number): void {
    target.set(this.config.subarray(offset, offset + target.length));
  }

  /** See VirtioDevice. */
  writeConfig(bytes: Uint8Array, offset: number): void {
    this.config.set(bytes, offset);
    this.events.push(`config ${offset}+${bytes.length}`);
  }

  /** See VirtioDevice. */
  featuresAgreed(low: number, high: number): void {
    this.events.push(`features ${low.toString(16)} ${high.toString(16)}`);
  }

  /** See VirtioDevice. */
  memoryAdded(region: MemoryRegion): void {
    this.regions.push(region);
    this.events.push(`memory+ ${region.guestAddress.toString(16)} ${region.size.toString(16)}`);
  }

  /** See VirtioDevice. */
  memoryRemoved(region: MemoryRegion): void {
    this.regions.splice(this.regions.indexOf(region), 1);
    this.events.push(`memory- ${region.guestAddress.toString(16)} ${region.size.toString(16)}`);
  }

  /** See VirtioDevice. */
  reset(kind: ResetKind): void {
    this.events.push(`reset ${kind}`);
  }

  /** See VirtioDevice. */
  queueStarted(index: number, queue: Queue): void {
    this.queues[index] = queue;
    this.events.push(`start ${index}`);
  }

  /** See VirtioDevice. */
  queueStopped(index: number): void {
    this.queues[index] = undefined;
    this.events.push(`stop ${index}`);
  }

  readonly stateSizeMax = 256 * 2 ** 20;
  /** What {@linkcode saveState} gives. */
  state: Uint8Array = Uint8Array.of(1, 2, 3);

  /** See VirtioDevice. */
  saveState(): Uint8Array {
    return this.state;
  }

  /** See VirtioDevice. A state that begins with 0 is none. */
  loadState(bytes: Uint8Array): string | undefined {
    if (bytes[0] === 0) return "it begins with 0";
    this.state = bytes;
    return undefined;
  }

  /** The events so far, which are forgotten. */
  takeEvents(): string[] {
    return this.events.splice(0);
  }
}

/** Serves one connection until it ends. */
export class Service {
  /** The session. */
  readonly backEnd: BackEnd;
  /** Log lines so far. */
  readonly lines: string[] = [];
  /** Ends with the session. */
  readonly done: Promise<void>;
  readonly #set = new PollSet();
  readonly #chain = new Chain();
  readonly #buffer = new Uint8Array(65536);

  /** Starts serving. */
  constructor(stream: UnixStream, device: VirtioDevice, options: BackEndOptions = {}) {
    const log = new Log("debug", (line) => this.lines.push(line));
    this.backEnd = new BackEnd(stream, device, { log, ...options });
    this.done = this.#run(device.queueCount);
  }

  /** Log lines of level warn. */
  get warnings(): string[] {
    return this.lines.filter((line) => line.startsWith("viommu: warn: ")).map((line) =>
      line.slice(14)
    );
  }

  /** Ends the session from this side. */
  async stop(): Promise<void> {
    this.backEnd.close();
    this.#set.wake();
    await this.done;
  }

  async #run(queues: number): Promise<void> {
    const { backEnd } = this;
    const set = this.#set;
    while (backEnd.isOpen) {
      set.clear();
      set.add(backEnd.descriptor, backEnd.events);
      const kicks: number[] = [];
      for (let i = 0; i < queues; i++) kicks.push(set.add(backEnd.kickDescriptor(i)));
      let busy = false;
      for (let i = 0; i < queues; i++) busy = this.#serve(i) || busy;
      if (busy) set.poll(0);
      else await set.wait();
      kicks.forEach((slot, i) => {
        if ((set.ready(slot) & POLLIN) !== 0) backEnd.drainKick(i);
      });
      backEnd.onReadable();
    }
    set.close();
  }

  #serve(index: number): boolean {
    const queue = this.backEnd.queue(index);
    if (queue === undefined) return false;
    while (queue.next(this.#chain)) {
      const length = this.#chain.gather(this.#buffer);
      const answer = this.#buffer.slice(0, Math.max(0, length)).reverse();
      const written = this.#chain.scatter(
        0,
        answer,
        0,
        Math.min(answer.length, this.#chain.writableLength),
      );
      queue.complete(this.#chain, Math.max(0, written));
    }
    queue.publish();
    this.backEnd.signal(index);
    if (queue.error !== 0) {
      this.backEnd.ringFailed(index);
      return false;
    }
    return queue.enableNotifications();
  }
}

/** Both ends of a session, in this process. Ends with the block of an `await using`. */
export interface Session extends AsyncDisposable {
  /** The device. */
  readonly device: RecordingDevice;
  /** Its end. */
  readonly service: Service;
  /** The other end. */
  readonly frontEnd: FrontEnd;
}

/** Joins a front end and a served device. */
export function connect(
  options: FrontEndOptions = {},
  device: RecordingDevice = new RecordingDevice(),
): Session {
  const [one, other] = UnixStream.pair();
  const session = {
    device,
    service: new Service(one, device),
    frontEnd: new FrontEnd(other, options),
    [Symbol.asyncDispose]: () => disconnect(session),
  };
  return session;
}

/** Ends a session from the front end's side and waits until the back end has seen it; does nothing the second time. */
export async function disconnect(session: Session): Promise<void> {
  session.frontEnd.close();
  await session.service.done;
}
