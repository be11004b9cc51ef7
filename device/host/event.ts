/**
 * Event descriptors (`eventfd(2)`), by which a front end and its back end signal each other.
 *
 * Neither side may block the other, whatever it has set on the shared file and however full the counter is. A read
 * asks the kernel not to block in the call itself (`RWF_NOWAIT`, Linux 5.8). A write cannot ask that, so an event of a
 * peer's is signalled in another way (`remote_signal.ts`).
 */
import { EVENT_NAME } from "./closing.ts";
import { EAGAIN, RWF_NOWAIT, SOCK_CLOEXEC, SOCK_NONBLOCK } from "./constants.ts";
import { Descriptor } from "./descriptor.ts";
import { descriptorName } from "./file_status.ts";
import { addressOf, errno, libc } from "./libc.ts";
import { OsError } from "./os_error.ts";
import { signalRemote } from "./remote_signal.ts";

/** Times that a signal is tried. */
const SIGNAL_TRIES = 8;
/** Most single signals that are drained at once. */
const MOST_SINGLES = 64;

const one = new BigUint64Array([1n]);
/** What was read from the counter: its lower half, its upper half. */
const drained = new Uint32Array(new ArrayBuffer(8));
let drainedVector: BigUint64Array<ArrayBuffer> | undefined;

/** An event descriptor. */
export class Event {
  /** The descriptor; this object closes it. Poll it for reading. */
  readonly descriptor: Descriptor;

  /** Whether the file was made by a peer, which may have changed its flags. */
  readonly #remote: boolean;
  #endless = false;

  private constructor(descriptor: Descriptor, remote: boolean) {
    this.descriptor = descriptor;
    this.#remote = remote;
  }

  /** A new event that has not been signalled. */
  static create(): Event {
    return Event.#make(false);
  }

  /** The same for a peer that is not trusted: whatever it does to the file, signalling never blocks. */
  static createShared(): Event {
    return Event.#make(true);
  }

  static #make(remote: boolean): Event {
    const number = libc().eventfd(0, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (number < 0) throw new OsError("Cannot create an event", "eventfd");
    return new Event(new Descriptor(number), remote);
  }

  /** Takes over a peer's descriptor; `undefined` if it is no event descriptor, which the caller then keeps. */
  static adopt(descriptor: Descriptor): Event | undefined {
    if (descriptorName(descriptor.number) !== EVENT_NAME) return undefined;
    descriptor.setNonblocking();
    return new Event(descriptor, true);
  }

  /** Signals it. If the counter is full, a signal is pending anyway. */
  signal(): void {
    if (this.#remote) return signalRemote(this.descriptor.number);
    // Whatever waits for this signal would wait without end if it were lost.
    for (let tries = 0; tries < SIGNAL_TRIES; tries++) {
      if (libc().write(this.descriptor.number, one, 8n) === 8 || errno() === EAGAIN) return;
    }
  }

  /**
   * Drains all signals. Returns whether there were any.
   *
   * An event in semaphore mode returns them one by one, and its maker can add more than can ever be read:
   * {@linkcode Event.isEndless}.
   */
  drain(): boolean {
    if (!this.#read()) return false;
    for (let i = 1; drained[0] === 1 && drained[1] === 0; i++) {
      if (i === MOST_SINGLES) {
        this.#endless = true;
        break;
      }
      if (!this.#read()) break;
    }
    return true;
  }

  /** Whether {@linkcode Event.drain} did not reach the last signal: a wait for this event never sleeps. */
  get isEndless(): boolean {
    return this.#endless;
  }

  /** Closes the descriptor; does nothing the second time. */
  close(): void {
    this.descriptor.close();
  }

  /** Closes it at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }

  #read(): boolean {
    drainedVector ??= new BigUint64Array([addressOf(drained.buffer), 8n]);
    return libc().preadv2(this.descriptor.number, drainedVector, 1, -1n, RWF_NOWAIT) === 8;
  }
}
