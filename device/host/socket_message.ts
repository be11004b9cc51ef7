/**
 * The structures of `sendmsg(2)` and `recvmsg(2)`: one piece of a buffer, and descriptors beside it (SCM_RIGHTS). They are
 * filled anew for each call, so that no call allocates.
 */
import { MSG_CTRUNC, SCM_MAX_FD, SCM_RIGHTS, SOL_SOCKET } from "./constants.ts";
import { addressOf } from "./libc.ts";

// struct msghdr: name u64 at 0, namelen u32 at 8, iov u64 at 16, iovlen u64 at 24, control u64 at 32,
// controllen u64 at 40, flags i32 at 48. struct iovec: base u64, len u64. struct cmsghdr: len u64,
// level i32, type i32, then data; each padded to 8 bytes.
const HEADER_BYTES = 56;
const CONTROL_HEADER_BYTES = 16;
const CONTROL_BYTES = CONTROL_HEADER_BYTES + ((SCM_MAX_FD * 4 + 7) & ~7);

/** One message at a time, to be sent or received. */
export class SocketMessage {
  readonly #header = new DataView(new ArrayBuffer(HEADER_BYTES));
  readonly #vector = new DataView(new ArrayBuffer(16));
  readonly #control = new DataView(new ArrayBuffer(CONTROL_BYTES));
  readonly #controlAddress: bigint;

  /** An empty message. */
  constructor() {
    this.#controlAddress = addressOf(this.#control.buffer);
    this.#header.setBigUint64(16, addressOf(this.#vector.buffer), true);
    this.#header.setBigUint64(24, 1n, true);
  }

  /**
   * The `struct msghdr` to receive up to `length` bytes into `target` from index `start`, and descriptors.
   *
   * @param mostDescriptors How many of them may come along, 0 to {@linkcode SCM_MAX_FD}.
   */
  toReceive(
    target: Uint8Array<ArrayBuffer>,
    start: number,
    length: number,
    mostDescriptors: number = SCM_MAX_FD,
  ): ArrayBuffer {
    this.#aim(target, start, length);
    this.#header.setBigUint64(32, this.#controlAddress, true);
    this.#header.setBigUint64(40, BigInt(CONTROL_HEADER_BYTES + mostDescriptors * 4), true);
    return this.#header.buffer;
  }

  /**
   * The `struct msghdr` to send `length` bytes of `source` from index `start`, and descriptors with them. Throws a
   * RangeError for more than the kernel passes at once.
   */
  toSend(
    source: Uint8Array<ArrayBuffer>,
    start: number,
    length: number,
    descriptors: readonly number[],
  ): ArrayBuffer {
    this.#aim(source, start, length);
    this.#header.setBigUint64(32, descriptors.length > 0 ? this.#controlAddress : 0n, true);
    this.#header.setBigUint64(40, BigInt(this.#attach(descriptors)), true);
    return this.#header.buffer;
  }

  /** The flags that the kernel has set for a message that was received. */
  get flags(): number {
    return this.#header.getInt32(48, true);
  }

  /** Whether control data of a message that was received was cut off. */
  get wasCut(): boolean {
    return (this.flags & MSG_CTRUNC) !== 0;
  }

  /** The descriptors of a message that was received, open from now on. */
  descriptors(): number[] {
    const found: number[] = [];
    const filled = Number(this.#header.getBigUint64(40, true));
    let at = 0;
    while (at + CONTROL_HEADER_BYTES <= filled) {
      const length = Number(this.#control.getBigUint64(at, true));
      if (length < CONTROL_HEADER_BYTES || at + length > filled) break;
      const rights = this.#control.getInt32(at + 8, true) === SOL_SOCKET &&
        this.#control.getInt32(at + 12, true) === SCM_RIGHTS;
      for (let data = CONTROL_HEADER_BYTES; rights && data + 4 <= length; data += 4) {
        found.push(this.#control.getInt32(at + data, true));
      }
      at += (length + 7) & ~7;
    }
    return found;
  }

  #aim(bytes: Uint8Array<ArrayBuffer>, start: number, length: number): void {
    if (length < 1 || start < 0 || start + length > bytes.length) {
      throw new RangeError(
        `Cannot transfer outside the buffer: ${length} bytes from ${start} of ${bytes.length}`,
      );
    }
    const address = addressOf(bytes.buffer) + BigInt(bytes.byteOffset + start);
    this.#vector.setBigUint64(0, address, true);
    this.#vector.setBigUint64(8, BigInt(length), true);
    this.#header.setInt32(48, 0, true);
  }

  /** Puts descriptors into the control buffer and says how many bytes of it are used. */
  #attach(descriptors: readonly number[]): number {
    if (descriptors.length === 0) return 0;
    if (descriptors.length > SCM_MAX_FD) {
      throw new RangeError(
        `Cannot send more than ${SCM_MAX_FD} descriptors: ${descriptors.length}`,
      );
    }
    const length = CONTROL_HEADER_BYTES + descriptors.length * 4;
    this.#control.setBigUint64(0, BigInt(length), true);
    this.#control.setInt32(8, SOL_SOCKET, true);
    this.#control.setInt32(12, SCM_RIGHTS, true);
    for (let i = 0; i < descriptors.length; i++) {
      this.#control.setInt32(CONTROL_HEADER_BYTES + i * 4, descriptors[i], true);
    }
    return (length + 7) & ~7;
  }
}
