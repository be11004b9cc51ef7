/**
 * One end of a channel between two processes of ours that carries packets and descriptors with them (`unix(7)`,
 * SOCK_SEQPACKET): a packet arrives whole or not at all.
 *
 * What was sent stays in the channel when the sender dies, descriptors included. But if the sender had not read all that
 * it was sent, the first receive after its death fails with ECONNRESET, before what it has sent: {@linkcode
 * PacketChannel.receive} goes on until the end.
 */
import {
  AF_UNIX,
  EAGAIN,
  ECONNRESET,
  EINTR,
  EPIPE,
  F_SETFD,
  FD_CLOEXEC,
  MSG_CMSG_CLOEXEC,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  MSG_TRUNC,
  SO_SNDBUF,
  SO_TYPE,
  SOCK_CLOEXEC,
  SOCK_SEQPACKET,
  SOL_SOCKET,
} from "./constants.ts";
import { closeAll, Descriptor } from "./descriptor.ts";
import { errno, libc, MOST_TRIES } from "./libc.ts";
import { OsError } from "./os_error.ts";
import { SocketMessage } from "./socket_message.ts";
import { socketOption } from "./socket_option.ts";
import { CLOSED, WOULD_BLOCK } from "./unix_stream.ts";

/** Most bytes of a packet. */
export const PACKET_BYTES_MAX: number = 128 * 1024;
/** Bytes that the kernel keeps of each direction: a packet of the largest size at least. */
const BUFFER_BYTES = 2 * PACKET_BYTES_MAX;

/** An end of a channel of packets. */
export class PacketChannel {
  /** The socket; this object closes it. */
  readonly descriptor: Descriptor;
  /** What {@linkcode PacketChannel.receive} fills. */
  readonly packet: Uint8Array<ArrayBuffer> = new Uint8Array(PACKET_BYTES_MAX);
  /** Descriptors that have come with the last packet and were not taken yet, in order. */
  readonly received: Descriptor[] = [];
  readonly #message = new SocketMessage();

  private constructor(descriptor: Descriptor) {
    this.descriptor = descriptor;
    const size = new Int32Array([BUFFER_BYTES]);
    libc().setsockopt(descriptor.number, SOL_SOCKET, SO_SNDBUF, size, size.byteLength);
  }

  /** Two ends of a new channel. Throws an OsError if the host refuses. */
  static pair(): [PacketChannel, PacketChannel] {
    const numbers = new Int32Array(2);
    if (libc().socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, numbers) < 0) {
      throw new OsError("Cannot make a channel", "socketpair");
    }
    return [
      new PacketChannel(new Descriptor(numbers[0])),
      new PacketChannel(new Descriptor(numbers[1])),
    ];
  }

  /** Takes over an end that the process was started with; `undefined` if the number is not one. */
  static inherited(number: number): PacketChannel | undefined {
    if (socketOption(number, SO_TYPE) !== SOCK_SEQPACKET) return undefined;
    libc().fcntl(number, F_SETFD, FD_CLOEXEC);
    return new PacketChannel(new Descriptor(number));
  }

  /**
   * Sends a packet of 1 to {@linkcode PACKET_BYTES_MAX} bytes with descriptors, which stay the caller's. It is in the
   * channel when this returns, whatever becomes of this process.
   *
   * @param waits Whether to wait for room; only for a peer that is trusted.
   * @returns The bytes sent, {@linkcode CLOSED} if the peer is gone, {@linkcode WOULD_BLOCK}.
   */
  send(
    bytes: Uint8Array<ArrayBuffer>,
    descriptors: readonly number[] = [],
    waits = false,
  ): number {
    if (bytes.length > PACKET_BYTES_MAX) {
      throw new RangeError(`Cannot send a packet of ${bytes.length} bytes`);
    }
    const header = this.#message.toSend(bytes, 0, bytes.length, descriptors);
    const flags = MSG_NOSIGNAL | (waits ? 0 : MSG_DONTWAIT);
    for (let tries = 1;; tries++) {
      const count = libc().sendmsg(this.descriptor.number, header, flags);
      if (count >= 0) return count;
      const error = errno();
      if (error === EAGAIN && !waits) return WOULD_BLOCK;
      if (error === EPIPE || error === ECONNRESET) return CLOSED;
      if (error !== EINTR && tries >= MOST_TRIES) {
        throw new OsError("Cannot send a packet", "sendmsg", error);
      }
    }
  }

  /**
   * Receives the next packet into {@linkcode PacketChannel.packet}. Descriptors of the one before that were not taken are
   * closed first.
   *
   * @returns Its bytes, {@linkcode CLOSED} at the end of the channel, {@linkcode WOULD_BLOCK}.
   */
  receive(): number {
    closeAll(this.received);
    const header = this.#message.toReceive(this.packet, 0, this.packet.length);
    for (let tries = 1;; tries++) {
      const flags = MSG_DONTWAIT | MSG_CMSG_CLOEXEC;
      const count = libc().recvmsg(this.descriptor.number, header, flags);
      if (count >= 0) {
        for (const number of this.#message.descriptors()) {
          this.received.push(Descriptor.received(number));
        }
        if (this.#message.wasCut || (this.#message.flags & MSG_TRUNC) !== 0) {
          throw new OsError("Cannot receive all of a packet", "recvmsg", errno());
        }
        return count;
      }
      const error = errno();
      if (error === EAGAIN) return WOULD_BLOCK;
      // ECONNRESET is said once; what the peer had sent before comes next.
      if (tries >= MOST_TRIES) throw new OsError("Cannot receive a packet", "recvmsg", error);
    }
  }

  /** Closes the socket and the descriptors that were not taken; does nothing the second time. */
  close(): void {
    closeAll(this.received);
    this.descriptor.close();
  }

  /** Closes it at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }
}
