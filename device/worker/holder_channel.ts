/**
 * The channel to the holder, as a worker has it: takes its packets, and tells what is to be done.
 *
 * When the holder has ended, this process ends, too: it could not be replaced, and the front end must see its connection
 * close.
 */
import { decode, encode, HeldFile, type Packet, PacketKind } from "../holder/packet.ts";
import { readSettings, type WorkerSettings } from "../holder/worker_texts.ts";
import { CLOSED, type Descriptor, type PacketChannel, PollSet, WOULD_BLOCK } from "../host/mod.ts";
import { HeldStream, type HolderLink } from "./held_stream.ts";

/** What a worker is given at its start. */
export interface WorkerStart {
  /** Which worker it is of all that were started. */
  readonly generation: number;
  /** What it is told. */
  readonly settings: WorkerSettings;
  /** Its files, by `HeldFile`; the caller's. */
  readonly files: ReadonlyMap<number, Descriptor>;
}

/** A session that the holder has handed over. */
export interface HandedSession {
  /** The connection. */
  readonly stream: HeldStream;
  /** As it was in its last commit; empty for one that begins. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The descriptors that belong to it. */
  readonly descriptors: ReadonlyMap<number, Descriptor>;
}

/** The channel to the holder. */
export class HolderChannel implements HolderLink {
  /** Whether this worker is the active one. */
  isActive = false;
  /** Whether it is to stop. */
  mustRelease = false;
  /** A session that was handed over and not taken. */
  session: HandedSession | undefined;
  readonly #channel: PacketChannel;
  readonly #onHolderGone: () => void;
  #start: WorkerStart | undefined;
  #stream: HeldStream | undefined;
  #kept = new Map<number, Descriptor>();

  /**
   * Takes over the channel.
   *
   * @param onHolderGone Ends this process.
   */
  constructor(channel: PacketChannel, onHolderGone: () => void) {
    this.#channel = channel;
    this.#onHolderGone = onHolderGone;
  }

  /** The channel's descriptor, to be polled. */
  get descriptor(): number {
    return this.#channel.descriptor.number;
  }

  /** What to poll where a listener is polled otherwise. */
  get pollNumber(): number {
    return this.descriptor;
  }

  /** Waits for the first packet, with this thread blocked. */
  start(): WorkerStart {
    using poll = new PollSet(1);
    poll.add(this.descriptor);
    while (this.#start === undefined) {
      poll.poll(-1);
      this.pump();
    }
    return this.#start;
  }

  /** Sends a packet; waits for room, as the holder is trusted. Descriptors stay the caller's. */
  send(message: Packet, descriptors: readonly Descriptor[] = []): void {
    const numbers = descriptors.map((each) => each.number);
    if (this.#channel.send(encode(message), numbers, true) === CLOSED) this.#onHolderGone();
  }

  /** Takes every packet that is there. */
  pump(): void {
    for (;;) {
      const count = this.#channel.receive();
      if (count === WOULD_BLOCK) return;
      if (count === CLOSED) return this.#onHolderGone();
      const message = decode(this.#channel.packet.subarray(0, count));
      if (message === undefined) throw new Error("The holder has sent what is no packet");
      this.#take(message, this.#channel.received.splice(0));
    }
  }

  /** A stream has ended: nothing more is for it. */
  ended(stream: HeldStream): void {
    if (this.#stream === stream) this.#stream = undefined;
  }

  #take(message: Packet, descriptors: Descriptor[]): void {
    switch (message.kind) {
      case PacketKind.INIT:
        this.#start = {
          generation: message.number,
          settings: readSettings(message.first),
          files: new Map(message.ids.map((id, i) => [id, descriptors[i]])),
        };
        break;
      case PacketKind.KEPT:
        message.ids.forEach((id, i) => this.#kept.set(id, numbered(descriptors[i], id)));
        break;
      case PacketKind.SESSION:
        this.#stream = new HeldStream(this, descriptors[0]);
        this.session = {
          stream: this.#stream,
          bytes: message.first,
          descriptors: this.#kept,
        };
        this.#kept = new Map();
        break;
      case PacketKind.DATA: {
        message.ids.forEach((id, i) => numbered(descriptors[i], id));
        if (this.#stream === undefined) { for (const each of descriptors) each.close(); }
        this.#stream?.took(message.first, descriptors, message.number === 1);
        break;
      }
      case PacketKind.ENDED:
        this.#stream?.ended();
        break;
      case PacketKind.GO:
        this.isActive = true;
        break;
      case PacketKind.RELEASE:
        this.mustRelease = true;
        break;
    }
  }
}

/** A file of the start. Throws an Error if the holder has not sent it. */
export function startFile({ files }: WorkerStart, kind: number): Descriptor {
  const file = files.get(kind);
  if (file === undefined) {
    const name = Object.entries(HeldFile).find(([_, value]) => value === kind)?.[0];
    throw new Error(`The holder has sent no ${name}`);
  }
  return file;
}

/** A descriptor with the number under which the holder holds it. */
function numbered(descriptor: Descriptor, id: number): Descriptor {
  descriptor.heldAs = id;
  return descriptor;
}
