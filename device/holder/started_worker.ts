/**
 * A worker as the holder sees it: its process, the channel to it, and how its death is noticed.
 *
 * Death shows in two ways: the mutex that the worker holds is released, within a millisecond, and later the channel ends.
 * Either way what the worker had sent before is still in the channel, and counts.
 */
import {
  ChildProcess,
  CLOSED,
  type Descriptor,
  PacketChannel,
  POLLIN,
  POLLOUT,
  WOULD_BLOCK,
} from "../host/mod.ts";
import { decode, encode, HeldFile, type Packet, packet, PacketKind } from "./packet.ts";
import { WorkerPage } from "./worker_page.ts";

/** The number that a worker's end of the channel has in it. */
export const CHANNEL_NUMBER = 3;

/** How a worker is started. */
export interface WorkerCommand {
  /** The program. */
  readonly path: string;
  /** Its arguments, the program's name first. */
  readonly args: readonly string[];
}

/** A packet that waits for room in the channel. */
interface Waiting {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly descriptors: readonly Descriptor[];
}

/** A worker process. */
export class StartedWorker {
  /** Which one it is of all that were started, from 1 on. */
  readonly generation: number;
  /** Its process. */
  readonly process: ChildProcess;
  /** What it shares with the holder. */
  readonly page: WorkerPage;
  /** What it offers, once it is ready. */
  offer: string | undefined;
  /** Whether it has said that it does not touch the guest any more. */
  isReleased = false;
  /** Whether it has said that it serves. */
  isServing = false;
  /** Whether it is dead. */
  isDead = false;
  /** Called when it has died, outside a call of any method. */
  onDeath: () => void = () => {};
  readonly #channel: PacketChannel;
  readonly #waiting: Waiting[] = [];

  /**
   * Starts a worker.
   *
   * @param files What it gets with its first packet, by {@linkcode HeldFile}; they stay the caller's.
   * @param settings What it is told with that, which the holder does not look into.
   * @throws {OsError} If the host refuses.
   */
  constructor(
    { path, args }: WorkerCommand,
    generation: number,
    files: ReadonlyMap<number, Descriptor>,
    settings: Uint8Array<ArrayBuffer>,
  ) {
    const [ours, its] = PacketChannel.pair();
    const { page, file } = WorkerPage.create();
    try {
      this.process = ChildProcess.start(
        path,
        args,
        new Map([[its.descriptor.number, CHANNEL_NUMBER]]),
      );
    } catch (error) {
      ours.close();
      file.close();
      throw error;
    } finally {
      its.close();
    }
    this.#channel = ours;
    this.page = page;
    this.generation = generation;
    const all = new Map([...files, [HeldFile.PAGE, file]]);
    const first = packet(PacketKind.INIT, {
      number: generation,
      ids: [...all.keys()],
      first: settings,
    });
    this.send(first, [...all.values()]);
    file.close();
  }

  /** The channel's descriptor; -1 once it is dead. */
  get descriptor(): number {
    return this.#channel.descriptor.number;
  }

  /** What to poll it for. */
  get events(): number {
    return this.#waiting.length > 0 ? POLLIN | POLLOUT : POLLIN;
  }

  /** Sends a packet, now or when there is room; descriptors stay the caller's. */
  send(message: Packet, descriptors: readonly Descriptor[] = []): void {
    if (this.isDead) return;
    const copies = descriptors.map((each) => each.duplicate());
    this.#waiting.push({ bytes: encode(message), descriptors: copies });
    this.flush();
  }

  /** Sends the packets that wait, as far as there is room. */
  flush(): void {
    while (this.#waiting.length > 0) {
      const { bytes, descriptors } = this.#waiting[0];
      const sent = this.#channel.send(bytes, descriptors.map((each) => each.number));
      if (sent === WOULD_BLOCK) return;
      for (const each of descriptors) each.close();
      this.#waiting.shift();
    }
  }

  /**
   * The next packet, with its descriptors in {@linkcode StartedWorker.received}; nothing if there is none. A packet that
   * is none ends the worker.
   */
  receive(): Packet | undefined {
    if (!this.#channel.descriptor.isOpen) return undefined;
    const count = this.#channel.receive();
    if (count === WOULD_BLOCK) return undefined;
    if (count === CLOSED) {
      this.#died();
      return undefined;
    }
    const message = decode(this.#channel.packet.subarray(0, count));
    if (message === undefined) this.process.kill();
    return message;
  }

  /** The descriptors of the packet last received; those that are not taken are closed with the next. */
  get received(): Descriptor[] {
    return this.#channel.received;
  }

  /** Notices the worker's death by its mutex from now on: it holds that. */
  watch(): void {
    this.page.death().then(() => this.#died());
  }

  /** Ends it, if it has not ended, and closes the channel. What it has sent and was not received is lost. */
  end(): void {
    this.process.kill();
    this.isDead = true;
    for (const { descriptors } of this.#waiting) {
      for (const each of descriptors) each.close();
    }
    this.#waiting.length = 0;
    this.#channel.close();
  }

  #died(): void {
    if (this.isDead) return;
    this.isDead = true;
    this.onDeath();
  }
}
