/**
 * Says which system calls the filter has refused.
 *
 * The kernel sends SIGSYS in place of a refused call. The handler counts it, signals an event and lets the call fail with
 * EPERM. For a call that nothing but an attack makes, it writes a line to standard error, if that takes one at once, and
 * ends the process with exit code 159.
 */
import { Event } from "../host/event.ts";
import { POLLIN, POLLOUT } from "../host/constants.ts";
import type { PollSet } from "../host/mod.ts";
import { handleSignal, type SignalCode } from "../host/signal_code.ts";
import { systemCallName } from "../host/system_calls.ts";
import type { Log } from "../log.ts";
import type { PollSource } from "../poll_source.ts";
import { ENDING } from "./filter.ts";

const SIGSYS = 31;

// The data behind the code: event descriptor i32, the number 1 at 8, `struct pollfd` of standard error at 16, no time
// (`struct timespec`) at 24, 1024 counts u32 at 64; from 4096 on lines of 128 bytes, each its length u64 and its text,
// the first of which is not used.
const ONE_AT = 8;
const POLL_AT = 16;
const COUNTS_AT = 64;
const MOST_NUMBERS = 1024;
const LINES_AT = 4096;
const LINE_BYTES = 128;
const STANDARD_ERROR = 2;

const CODE: SignalCode = {
  x86_64: [
    "8b46188b4e04", // mov eax, [rsi+24] (si_syscall); mov ecx, [rsi+4] (si_errno: what the filter gives)
    "4c8d0df30f000085c97531", // lea r9, [data]; test ecx, ecx; jne end
    "3dff0300007605b8ff030000", // cmp eax, 1023; jbe count; mov eax, 1023
    "f041ff448140", // count: lock inc dword [r9+rax*4+64]
    "48c78290000000ffffffff", // mov qword [rdx+144], -1 (the call's result: -EPERM)
    "418b39498d7108ba08000000b8010000000f05c3", // write([r9], r9+8, 8); ret
    "534889cb48c1e307498d9c1900100000", // end: push rbx; mov rbx, rcx; shl rbx, 7; lea rbx, [r9+rbx+4096]
    "498d7910be0100000031d2b8070000000f05", // poll(r9+16, 1, 0)
    "f605ab0f0000047413", // test byte [data+22], POLLOUT; je over
    "bf02000000488d7308488b13b8010000000f05", // write(2, rbx+8, [rbx])
    "bf9f000000b8e70000000f050f0b", // over: exit_group(159); ud2
  ],
  aarch64: [
    "281840b92a0440b9", // ldr w8, [x1, #24] (si_syscall); ldr w10, [x1, #4] (si_errno)
    "c97f00104a020035", // adr x9, data; cbnz w10, end
    "eb7f80521f010b6b08918b1a", // mov w11, #1023; cmp w8, w11; csel w8, w8, w11, ls
    "2b0101916b49288b", // add x11, x9, #64; add x11, x11, w8, uxtw #2
    "6cfd5f888c0500116cfd0d88adffff35", // count: ldaxr w12, [x11]; add w12, w12, #1; stlxr w13, w12, [x11]; cbnz w13, count
    "0c0080924c5c00f9", // mov x12, #-1; str x12, [x2, #184] (the call's result: -EPERM)
    "200140b921210091020180d2080880d2010000d4c0035fd6", // write([x9], x9+8, 8); ret
    "2b0540916b1d0a8b", // end: add x11, x9, #4096; add x11, x11, x10, lsl #7
    "20410091210080d222610091030080d2280980d2010000d4", // ppoll(x9+16, 1, x9+24, 0)
    "20594039c0001036", // ldrb w0, [x9, #22]; tbz w0, #2, over
    "400080d261210091620140f9080880d2010000d4", // write(2, x11+8, [x11])
    "e01380d2c80b80d2010000d4000020d4", // over: exit_group(159); brk
  ],
};

/** Counts refused calls. */
export class Refusals {
  readonly #event: Event;
  readonly #counts: Uint32Array;

  private constructor(event: Event, counts: Uint32Array) {
    this.#event = event;
    this.#counts = counts;
  }

  /** Handles SIGSYS from now on, until the process ends. Returns why it cannot, in a few words. */
  static install(): Refusals | string {
    const data = handleSignal(SIGSYS, CODE, LINES_AT + (ENDING.length + 1) * LINE_BYTES);
    if (typeof data === "string") return data;
    const event = Event.create();
    const view = new DataView(data);
    view.setInt32(0, event.descriptor.number, true);
    view.setBigUint64(ONE_AT, 1n, true);
    view.setInt32(POLL_AT, STANDARD_ERROR, true);
    view.setInt16(POLL_AT + 4, POLLOUT, true);
    ENDING.forEach((name, i) => {
      const line = new TextEncoder().encode(
        `viommu: error: The sandbox refuses ${name}: the process ends (docs/sandbox.md)\n`,
      );
      const at = LINES_AT + (i + 1) * LINE_BYTES;
      view.setBigUint64(at, BigInt(line.length), true);
      new Uint8Array(data, at + 8).set(line);
    });
    return new Refusals(event, new Uint32Array(data, COUNTS_AT, MOST_NUMBERS));
  }

  /** How often each call was refused, by name; those that were not are left out. */
  get counts(): Readonly<Record<string, number>> {
    const counts: Record<string, number> = {};
    this.#counts.forEach((count, number) => {
      if (count > 0) counts[systemCallName(number)] = count;
    });
    return counts;
  }

  /** What logs each refused call as it happens; the loop polls it. */
  source(log: Log): PollSource {
    return new RefusalLog(this, this.#event, log);
  }
}

/** Logs refused calls. */
class RefusalLog implements PollSource {
  readonly name = "the sandbox";
  onDue: () => void = () => {};
  readonly mustPoll = false;
  readonly #refusals: Refusals;
  readonly #event: Event;
  readonly #log: Log;
  #logged: Readonly<Record<string, number>> = {};
  #slot = -1;

  constructor(refusals: Refusals, event: Event, log: Log) {
    this.#refusals = refusals;
    this.#event = event;
    this.#log = log;
  }

  addTo(poll: PollSet): void {
    this.#slot = poll.add(this.#event.descriptor.number, POLLIN);
  }

  look(poll: PollSet): void {
    if (poll.ready(this.#slot) === 0) return;
    this.#event.drain();
    const { counts } = this.#refusals;
    for (const [name, count] of Object.entries(counts)) {
      const more = count - (this.#logged[name] ?? 0);
      if (more === 0) continue;
      const times = more === 1 ? "" : ` ${more} times`;
      this.#log.warnLimited("sandbox", `The sandbox refused ${name}${times}`);
    }
    this.#logged = counts;
  }

  serve(): boolean {
    return false;
  }

  setNotifications(): boolean {
    return false;
  }

  endSession(): void {}

  /** The event stays: the handler may still signal it. */
  close(): void {}
}
