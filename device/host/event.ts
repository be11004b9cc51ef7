/**
 * Event descriptors (`eventfd(2)`): what rings the bell between a front end and its back end.
 *
 * Neither end may be made to wait by the other. Reading asks the kernel not to wait in the call itself
 * (`RWF_NOWAIT`, Linux 5.8), whatever the other end has set on the shared file. Writing cannot be asked so; it
 * waits only while the counter is full, and adopted descriptors are made nonblocking. What remains is a peer
 * that keeps the counter full and takes that flag back: it can make its own device wait for it.
 *
 * @module
 */
import { RWF_NOWAIT, SOCK_CLOEXEC, SOCK_NONBLOCK } from "./constants.ts";
import { Descriptor } from "./descriptor.ts";
import { descriptorName } from "./file_status.ts";
import { addressOf, libc } from "./libc.ts";
import { OsError } from "./os_error.ts";

/** How `/proc` calls an event descriptor. */
const EVENT_NAME = "anon_inode:[eventfd]";

const one = new BigUint64Array([1n]);
const drained = new BigUint64Array(new ArrayBuffer(8));
let drainedVector: BigUint64Array<ArrayBuffer> | undefined;

/** An event descriptor. */
export class Event {
  /** The descriptor; this object closes it. Poll it for reading. */
  readonly descriptor: Descriptor;

  private constructor(descriptor: Descriptor) {
    this.descriptor = descriptor;
  }

  /** A new one that has not been signalled. */
  static create(): Event {
    const number = libc().eventfd(0, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (number < 0) throw new OsError("Cannot create an event", "eventfd");
    return new Event(new Descriptor(number));
  }

  /** Takes over a peer's descriptor; `undefined` if it is no event descriptor, and then it stays the caller's. */
  static adopt(descriptor: Descriptor): Event | undefined {
    if (descriptorName(descriptor.number) !== EVENT_NAME) return undefined;
    descriptor.setNonblocking();
    return new Event(descriptor);
  }

  /** Signals it. If the counter is full, a signal is pending anyway. */
  signal(): void {
    libc().write(this.descriptor.number, one, 8n);
  }

  /** Takes all signals back; whether there were any. */
  drain(): boolean {
    drainedVector ??= new BigUint64Array([addressOf(drained.buffer), 8n]);
    return libc().preadv2(this.descriptor.number, drainedVector, 1, -1n, RWF_NOWAIT) === 8;
  }

  /** Closes the descriptor; does nothing the second time. */
  close(): void {
    this.descriptor.close();
  }

  /** Closes it at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }
}
