/**
 * The connection of a front end as a worker has it: the holder reads and sends, this process says what and when.
 *
 * What the worker has received it has to commit, message by message, together with the answer; until then the holder keeps
 * it for another worker. So an answer is sent once, whenever a worker dies.
 */
import { concat } from "@std/bytes";
import { type Packet, packet, PacketKind } from "../holder/packet.ts";
import { closeAll, CLOSED, Descriptor, WOULD_BLOCK } from "../host/mod.ts";
import type { MessageStream } from "../vhost_user/mod.ts";

/** Bytes that have come together. */
interface Piece {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Descriptors that came with the first of them, until that is received. */
  readonly descriptors: Descriptor[];
  /** Bytes of it that were received. */
  taken: number;
}

/** The way to the holder. */
export interface HolderLink {
  /** What to poll to be read. */
  readonly descriptor: number;
  /** Takes every packet that is there. */
  pump(): void;
  /** Sends a packet; descriptors stay the caller's. */
  send(packet: Packet, descriptors?: readonly Descriptor[]): void;
  /** A stream has ended: nothing more is for it. */
  ended(stream: HeldStream): void;
}

/** A held connection. */
export class HeldStream implements MessageStream {
  readonly descriptor: Descriptor;
  readonly received: Descriptor[] = [];
  descriptorsLost = false;
  readonly #channel: HolderLink;
  /** What has come and was not received. */
  #pieces: Piece[] = [];
  /** Bytes that are ordered and have not come. */
  #ordered = 0;
  /** Bytes received since the last commit. */
  #receivedBytes = 0;
  #hasEnded = false;
  /** What is sent with the next commit. */
  #answer: Uint8Array<ArrayBuffer>[] = [];
  readonly #answerDescriptors: Descriptor[] = [];

  /**
   * A connection that the holder holds.
   *
   * @param descriptor A copy of it, to find out who is at its other end.
   */
  constructor(channel: HolderLink, descriptor: Descriptor) {
    this.#channel = channel;
    this.descriptor = descriptor;
  }

  /** The channel to the holder. */
  get pollNumber(): number {
    return this.#channel.descriptor;
  }

  get isDue(): boolean {
    return this.#pieces.length > 0 || this.#hasEnded || this.#ordered === 0;
  }

  /** The holder has sent bytes of the front end, with descriptors. */
  took(bytes: Uint8Array<ArrayBuffer>, descriptors: Descriptor[], isLost: boolean): void {
    this.#ordered = Math.max(0, this.#ordered - bytes.length);
    this.#pieces.push({ bytes, descriptors, taken: 0 });
    if (isLost) this.descriptorsLost = true;
  }

  /** The front end has closed the connection. */
  ended(): void {
    this.#hasEnded = true;
  }

  receive(target: Uint8Array<ArrayBuffer>, start: number, length: number): number {
    this.#channel.pump();
    const [piece] = this.#pieces;
    if (piece !== undefined) {
      const count = Math.min(length, piece.bytes.length - piece.taken);
      target.set(piece.bytes.subarray(piece.taken, piece.taken + count), start);
      // With the first byte, as a socket gives them: before, they would be taken for those of an earlier message.
      this.received.push(...piece.descriptors.splice(0));
      piece.taken += count;
      if (piece.taken === piece.bytes.length) this.#pieces.shift();
      this.#receivedBytes += count;
      return count;
    }
    if (this.#hasEnded) return CLOSED;
    if (this.#ordered === 0 && this.descriptor.isOpen) {
      this.#ordered = length;
      this.#channel.send(packet(PacketKind.READ, { number: length }));
    }
    return WOULD_BLOCK;
  }

  send(
    source: Uint8Array<ArrayBuffer>,
    start: number,
    length: number,
    descriptors: readonly number[] = [],
  ): number {
    this.#answer.push(source.slice(start, start + length));
    for (const number of descriptors) {
      using original = new Descriptor(number);
      this.#answerDescriptors.push(original.duplicate());
      original.take();
    }
    return length;
  }

  commit(session: Uint8Array<ArrayBuffer>, held: readonly number[]): void {
    const message = packet(PacketKind.COMMIT, {
      number: this.#receivedBytes,
      ids: held,
      first: session,
      second: concat(this.#answer),
    });
    this.#channel.send(message, this.#answerDescriptors);
    closeAll(this.#answerDescriptors);
    this.#answer = [];
    this.#receivedBytes = 0;
  }

  /** Ends the session: the holder closes the connection. What was sent and not committed is not sent. */
  end(): void {
    if (!this.descriptor.isOpen) return;
    closeAll(this.#answerDescriptors);
    closeAll(this.received);
    for (const { descriptors } of this.#pieces) closeAll(descriptors);
    this.descriptor.close();
    this.#channel.ended(this);
    this.#channel.send(packet(PacketKind.END));
  }
}
