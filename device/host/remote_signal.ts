/**
 * Signals an event descriptor whose other end may be hostile, without blocking.
 *
 * `write(2)` on an event blocks while its counter is full, unless the shared file is nonblocking; the other end can
 * fill the counter and clear the flag at any time, between any two calls. The kernel itself can signal without
 * blocking: a request of its asynchronous I/O (`io_submit`) that names an event signals it on completion, whatever the
 * counter. So an event is signalled by the completion of a request that does nothing: to read 0 bytes of `/dev/null`,
 * which completes within the call. That costs some 2 µs where a write costs 1.
 *
 * If the kernel has no asynchronous I/O, or a sandbox forbids it, the event is written, after a check that this would
 * not block.
 */
import { O_CLOEXEC, POLLOUT } from "./constants.ts";
import { addressOf, cString, libc } from "./libc.ts";

/** Numbers of the system calls, which the C library has no functions for. */
const CALLS = Deno.build.arch === "aarch64"
  ? { setup: 0n, submit: 2n, getEvents: 4n }
  : { setup: 206n, submit: 209n, getEvents: 208n };
/** Requests that the kernel keeps the results of. */
const CAPACITY = 64n;
/** Requests after which the results, which are of no use, are taken away. */
const BATCH = 32;
/** `struct io_event`. */
const RESULT_BYTES = 32;
/** `struct iocb`: opcode u16 at 16 (0: read), file u32 at 20, flags u32 at 56, event u32 at 60. */
const REQUEST_WORDS = 16;
const FILE_WORD = 5;
const FLAGS_WORD = 14;
const EVENT_WORD = 15;
/** The request names an event. */
const SIGNALS = 1;

const one = new BigUint64Array([1n]);

/** The way to signal events of others; made by the first signal. */
class RemoteSignal {
  /** 0 where there is no asynchronous I/O. */
  readonly #context: bigint;
  readonly #request = new Int32Array(new ArrayBuffer(REQUEST_WORDS * 4));
  readonly #requests = new BigUint64Array([addressOf(this.#request.buffer)]);
  readonly #results = new Uint8Array(new ArrayBuffer(Number(CAPACITY) * RESULT_BYTES));
  readonly #poll = new Int32Array(new ArrayBuffer(8));
  #pending = 0;

  constructor() {
    const context = new BigUint64Array([0n]);
    const nothing = libc().open(cString("/dev/null"), O_CLOEXEC, 0);
    const made = nothing >= 0 && libc().ioSetup(CALLS.setup, CAPACITY, context) === 0;
    this.#context = made ? context[0] : 0n;
    this.#request[FILE_WORD] = nothing;
    this.#request[FLAGS_WORD] = SIGNALS;
  }

  /** Signals an event. */
  signal(event: number): void {
    if (this.#context === 0n || !this.#submit(event)) this.#write(event);
  }

  #submit(event: number): boolean {
    this.#request[EVENT_WORD] = event;
    const { submit, getEvents } = CALLS;
    const submitted = libc().ioSubmit(submit, this.#context, 1n, this.#requests) === 1;
    if (!submitted || ++this.#pending === BATCH) {
      this.#pending = 0;
      libc().ioGetEvents(getEvents, this.#context, 0n, CAPACITY, this.#results, null);
    }
    return submitted;
  }

  #write(event: number): void {
    this.#poll[0] = event;
    this.#poll[1] = POLLOUT;
    if (libc().poll(this.#poll, 1n, 0) === 1) libc().write(event, one, 8n);
  }
}

let remote: RemoteSignal | undefined;

/** Signals an event of a peer's. If its counter is full, a signal is pending anyway. */
export function signalRemote(event: number): void {
  remote ??= new RemoteSignal();
  remote.signal(event);
}
