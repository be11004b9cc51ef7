/**
 * A set of descriptors to wait for (`poll(2)`), over buffers that are reused.
 *
 * Looking ({@linkcode PollSet.poll} with 0) costs one system call of about half a microsecond. Awaiting
 * ({@linkcode PollSet.wait}) runs the call on a thread of the runtime's pool, so that timers, sockets and
 * signals of the event loop are served meanwhile; handing over and back costs about 100 µs on the build
 * machine, which is why a busy loop looks and only an idle one awaits.
 *
 * @module
 */
import { EINTR, POLLIN } from "./constants.ts";
import { Event } from "./event.ts";
import { errno, libc } from "./libc.ts";
import { OsError } from "./os_error.ts";

/** A wait this long, in milliseconds, has no end of its own. */
const FOREVER = -1;
/** Milliseconds that fit into the C int of a timeout. */
const LONGEST = 0x7fffffff;

/**
 * Descriptors and what is awaited on each. A slot is the number that {@linkcode PollSet.add} gave; clearing
 * the set and adding again is the way to change it.
 */
export class PollSet {
  /** `struct pollfd`: fd i32, events i16, revents i16; slot 0 is the wake-up. */
  #slots: Int32Array<ArrayBuffer>;
  /** The same for the thread that waits, so that the set may change meanwhile. */
  #waiting: Int32Array<ArrayBuffer>;
  #count = 1;
  /** The same as the C function takes it. */
  #nativeCount = 1n;
  readonly #wake: Event = Event.create();
  #waits = false;

  /**
   * An empty set.
   *
   * @param capacity Slots to begin with; the set grows.
   */
  constructor(capacity = 16) {
    this.#slots = new Int32Array(new ArrayBuffer((capacity + 1) * 8));
    this.#waiting = new Int32Array(new ArrayBuffer((capacity + 1) * 8));
    this.#slots[0] = this.#wake.descriptor.number;
    this.#slots[1] = POLLIN;
  }

  /** How many descriptors are in the set. */
  get size(): number {
    return this.#count - 1;
  }

  /** Takes all descriptors out. */
  clear(): void {
    this.#count = 1;
    this.#nativeCount = 1n;
  }

  /** Adds a descriptor, by default to be read, and gives its slot. A number below 0 is never ready. */
  add(descriptor: number, events: number = POLLIN): number {
    const slot = this.#count;
    if ((slot + 1) * 2 > this.#slots.length) this.#grow();
    this.#slots[slot * 2] = descriptor;
    this.#slots[slot * 2 + 1] = events;
    this.#count++;
    this.#nativeCount = BigInt(this.#count);
    return slot;
  }

  /** What is ready on a slot as of the last poll or wait: `POLLIN`, `POLLOUT`, `POLLHUP`, `POLLERR`, `POLLNVAL`. */
  ready(slot: number): number {
    return this.#slots[slot * 2 + 1] >>> 16;
  }

  /**
   * Looks, or waits with the whole process standing still.
   *
   * @param timeout Milliseconds, 0 to look only, -1 without end.
   * @returns how many slots are ready. 0 also when a signal came: serve the event loop then.
   */
  poll(timeout = 0): number {
    const found = libc().poll(this.#slots, this.#nativeCount, timeout | 0);
    if (found < 0) {
      const error = errno();
      if (error !== EINTR) throw new OsError("Cannot poll", "poll", error);
      this.#forget();
      return 0;
    }
    return this.#collect(found);
  }

  /**
   * Waits while the event loop goes on; one wait at a time. {@linkcode PollSet.wake} ends it early.
   *
   * @param timeout Milliseconds; -1, the default, without end.
   * @returns how many slots are ready.
   */
  async wait(timeout: number = FOREVER): Promise<number> {
    if (this.#waits) throw new Error("Cannot wait twice at once on one poll set");
    if (this.#waiting.length < this.#slots.length) {
      this.#waiting = new Int32Array(new ArrayBuffer(this.#slots.byteLength));
    }
    this.#waiting.set(this.#slots.subarray(0, this.#count * 2));
    this.#waits = true;
    try {
      const milliseconds = timeout < 0 ? FOREVER : Math.min(Math.ceil(timeout), LONGEST) | 0;
      await libc().pollOnThread(this.#waiting, this.#nativeCount, milliseconds);
    } finally {
      this.#waits = false;
    }
    // The thread's errno cannot be read, and the set may have changed: what counts is how things are now.
    return this.poll(0);
  }

  /** Ends the wait that is under way, or the next one at once. */
  wake(): void {
    this.#wake.signal();
  }

  /** Closes the set's own descriptor. No wait may be under way. */
  close(): void {
    if (this.#waits) throw new Error("Cannot close a poll set while somebody waits on it");
    this.#wake.close();
  }

  /** Closes it at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** The number of ready slots without the wake-up's, which is taken back. */
  #collect(found: number): number {
    if ((this.#slots[1] >>> 16) === 0) return found;
    this.#wake.drain();
    return found - 1;
  }

  #forget(): void {
    for (let slot = 0; slot < this.#count; slot++) this.#slots[slot * 2 + 1] &= 0xffff;
  }

  #grow(): void {
    const slots = new Int32Array(new ArrayBuffer(this.#slots.byteLength * 2));
    slots.set(this.#slots);
    this.#slots = slots;
  }
}
