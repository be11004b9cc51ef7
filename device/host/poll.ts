/**
 * A set of descriptors to wait for (`poll(2)`), over buffers that are reused.
 *
 * There are three ways, from busy to idle:
 *
 * - Looking ({@linkcode PollSet.poll} with 0) costs one system call of about half a microsecond.
 * - Dozing ({@linkcode PollSet.doze}) sleeps in this thread and wakes in some 40 µs. The event loop is
 *   blocked meanwhile, but the runtime's own epoll descriptors are in the set, so that it runs as soon as it has
 *   a socket or a signal to serve; only timers may be late, by {@linkcode SLICE} milliseconds. After a while
 *   without events, dozing turns into awaiting.
 * - Awaiting ({@linkcode PollSet.wait}) runs the call on a thread of the runtime's pool while the event loop
 *   runs. A wake-up takes some 110 µs.
 *
 * The figures are medians between two processes on the 2-core build machine.
 */
import { EINTR, POLLIN } from "./constants.ts";
import { Event } from "./event.ts";
import { eventLoopTurn } from "./event_loop.ts";
import { descriptorName } from "./file_status.ts";
import { errno, libc } from "./libc.ts";
import { errnoName } from "./os_error.ts";

/** A wait this long, in milliseconds, has no end of its own. */
const FOREVER = -1;
/** Most milliseconds that dozing keeps the event loop from its timers. */
const SLICE = 10;
/** Turns of the event loop before dozing turns into awaiting. */
const MOST_SLICES = 20;
/** How `/proc` calls an epoll descriptor, and how far to look for those of the runtime, which opens them first. */
const EPOLL_NAME = "anon_inode:[eventpoll]";
const EPOLL_LAST = 32;
/** Milliseconds that a wait takes at least where the host refuses to poll. */
const REFUSED_MS = 10;
/** Milliseconds that fit into the C int of a timeout. */
const LONGEST = 0x7fffffff;

/** Waits of all sets that are under way on threads of the runtime's pool. */
let waitsOnThreads = 0;

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
  /** Whether the last poll found the wake-up. */
  #woken = false;
  readonly #runtimeEpolls: readonly number[] = findRuntimeEpolls();
  /** Called with one line that says why the host refused to poll: nothing is ready then. */
  onProblem: (line: string) => void = () => {};
  #refused = false;
  /** Whether {@linkcode PollSet.look} found that the event loop has a socket or a signal to serve. */
  runtimeReady = false;

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

  /** Takes all descriptors out. */
  clear(): void {
    this.#truncate(1);
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
   * Looks, or waits with the event loop blocked.
   *
   * @param timeout Milliseconds, 0 to look only, -1 without end.
   * @returns how many slots are ready. 0 also when a signal came, or the host refused: serve the event loop then.
   */
  poll(timeout = 0): number {
    const found = libc().poll(this.#slots, this.#nativeCount, timeout | 0);
    if (found >= 0) return this.#collect(found);
    const error = errno();
    this.#refused = error !== EINTR;
    if (this.#refused) this.onProblem(`Cannot poll: poll failed: ${errnoName(error)}`);
    this.#forget();
    return 0;
  }

  /** Looks as {@linkcode PollSet.poll} does, and at the event loop's own descriptors: see `runtimeReady`. */
  look(): number {
    return this.#pollWithRuntime(0);
  }

  /**
   * Waits while the event loop runs; one wait at a time. {@linkcode PollSet.wake} ends it early.
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
      this.#refused = false;
      waitsOnThreads++;
      let found: number;
      try {
        found = await libc().pollOnThread(this.#waiting, this.#nativeCount, milliseconds);
      } finally {
        waitsOnThreads--;
      }
      // The thread's errno cannot be read, and the set may have changed, so the current state is read.
      const ready = this.poll(0);
      // A call that keeps failing at once would keep the processor busy.
      if (this.#refused || (found < 0 && ready === 0)) {
        await new Promise<void>((resolve) => setTimeout(resolve, REFUSED_MS));
      }
      return ready;
    } finally {
      this.#waits = false;
    }
  }

  /**
   * Waits in this thread for as long as that is likely to be short, then as {@linkcode PollSet.wait} does.
   *
   * If another set of this process is awaited, this one is, too: no descriptor signals that a thread of the pool has
   * finished, so the other wait would end late by up to {@linkcode SLICE} milliseconds.
   *
   * @param timeout Milliseconds; -1, the default, without end.
   * @returns how many slots are ready.
   */
  async doze(timeout: number = FOREVER): Promise<number> {
    if (this.#waits) throw new Error("Cannot wait twice at once on one poll set");
    const deadline = timeout < 0 ? Infinity : performance.now() + timeout;
    const count = this.#count;
    for (let slice = 0; slice < MOST_SLICES && waitsOnThreads === 0; slice++) {
      const left = Math.max(0, deadline - performance.now());
      const found = this.#pollWithRuntime(Math.ceil(Math.min(SLICE, left)));
      if (found > 0 || this.#woken || left === 0) return found;
      await eventLoopTurn();
      // The set may have been changed meanwhile.
      if (this.#count !== count) break;
    }
    const left = Math.max(0, deadline - performance.now());
    return await this.wait(left === Infinity ? FOREVER : left);
  }

  /** Ends the wait that is under way, or the next one at once. */
  wake(): void {
    this.#wake.signal();
  }

  /** Closes the set's own descriptor. No wait may be under way. */
  close(): void {
    if (this.#waits) throw new Error("Cannot close a poll set that is waited on");
    this.#wake.close();
  }

  /** Closes it at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** The number of ready slots without the wake-up's, which is drained. */
  #collect(found: number): number {
    this.#woken = (this.#slots[1] >>> 16) !== 0;
    if (!this.#woken) return found;
    this.#wake.drain();
    return found - 1;
  }

  /** Polls, and ends when the event loop has something to do, too. The number of our own slots that are ready. */
  #pollWithRuntime(timeout: number): number {
    const count = this.#count;
    for (const epoll of this.#runtimeEpolls) this.add(epoll);
    let found = this.poll(timeout);
    this.runtimeReady = false;
    for (let slot = count; slot < this.#count; slot++) {
      if (this.ready(slot) === 0) continue;
      this.runtimeReady = true;
      found--;
    }
    this.#truncate(count);
    return found;
  }

  #truncate(count: number): void {
    this.#count = count;
    this.#nativeCount = BigInt(count);
  }

  #forget(): void {
    this.#woken = false;
    for (let slot = 0; slot < this.#count; slot++) this.#slots[slot * 2 + 1] &= 0xffff;
  }

  #grow(): void {
    const slots = new Int32Array(new ArrayBuffer(this.#slots.byteLength * 2));
    slots.set(this.#slots);
    this.#slots = slots;
  }
}

let runtimeEpolls: readonly number[] | undefined;

/**
 * The runtime's own epoll descriptors: readable when the event loop has something to do. Looked for once, before a peer
 * can have sent one of its own.
 */
function findRuntimeEpolls(): readonly number[] {
  if (runtimeEpolls === undefined) {
    const found: number[] = [];
    for (let number = 0; number <= EPOLL_LAST; number++) {
      if (descriptorName(number) === EPOLL_NAME) found.push(number);
    }
    runtimeEpolls = found;
  }
  return runtimeEpolls;
}
