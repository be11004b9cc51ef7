/**
 * System calls that concern the calling thread alone, made in every thread of the process.
 *
 * The runtime has threads of its own before any of our code runs (V8's and the pool's), in which none of our code can be
 * called. So each gets a signal, whose handler makes the calls, as libpsx does it for capabilities. A thread that begins
 * meanwhile inherits what its creator has; so the list of threads is read until it has no new one.
 */
import { ESRCH, O_CLOEXEC, O_RDONLY } from "./constants.ts";
import { cString, errno, libc } from "./libc.ts";
import { errnoName } from "./os_error.ts";
import { handleSignal, type SignalCode, unhandleSignal } from "./signal_code.ts";
import { SYSTEM_CALLS, systemCall } from "./system_calls.ts";

/** SIGSTKFLT, which Linux sends to nothing on these architectures. */
const SIGNAL = 16;
/** Milliseconds that a thread has to handle it. */
const PATIENCE_MS = 5000;

// The data behind the code: threads done u64, last error i64 at 8, the calls at 64, each 6 words; a negative number
// ends them.
const DONE_WORD = 0;
const ERROR_WORD = 1;
const CALLS_WORD = 8;
const CALL_WORDS = 6;
const MOST_CALLS = 8;
const DATA_BYTES = 4096;

const CODE: SignalCode = {
  x86_64: [
    "53488d1d38100000", // push rbx; lea rbx, [calls]
    "488b034885c07828", // next: mov rax, [rbx]; test rax, rax; js done
    "488b7b08488b7310488b53184c8b53204c8b43280f05", // mov rdi, [rbx+8]; rsi, +16; rdx, +24; r10, +32; r8, +40; syscall
    "4885c07907488905d60f0000", // test rax, rax; jns ok; mov [error], rax
    "4883c330ebd0", // ok: add rbx, 48; jmp next
    "f048ff05c00f00005bc3", // done: lock inc [done]; pop rbx; ret
  ],
  aarch64: [
    "098000102a010191", // adr x9, data; add x10, x9, #64
    "480140f92801f8b7", // next: ldr x8, [x10]; tbnz x8, #63, done
    "408540a9428d41a9441540f9010000d4", // ldp x0, x1, [x10, #8]; ldp x2, x3, [x10, #24]; ldr x4, [x10, #40]; svc #0
    "4000f8b6200500f9", // tbz x0, #63, ok; str x0, [x9, #8]
    "4ac10091f7ffff17", // ok: add x10, x10, #48; b next
    "2bfd5fc86b0500912bfd0cc8acffff35c0035fd6", // done: ldaxr x11, [x9]; add x11, x11, #1; stlxr w12, x11, [x9]; cbnz w12, done; ret
  ],
};

/** A system call: its number and up to five arguments. */
export type ThreadCall = readonly [number: number, ...args: bigint[]];

/**
 * Makes system calls in every thread, in this order.
 *
 * @returns nothing if each succeeded in each thread, or why not in a few words.
 */
export function inEveryThread(calls: readonly ThreadCall[]): string | undefined {
  if (calls.length > MOST_CALLS) throw new RangeError(`Cannot make ${calls.length} calls at once`);
  const data = handleSignal(SIGNAL, CODE, DATA_BYTES);
  if (typeof data === "string") return data;
  const words = new BigInt64Array(data);
  calls.forEach((call, i) => {
    call.forEach((word, j) => words[CALLS_WORD + i * CALL_WORDS + j] = BigInt(word));
  });
  words[CALLS_WORD + calls.length * CALL_WORDS] = -1n;
  try {
    return signalAll(words);
  } finally {
    unhandleSignal(SIGNAL);
  }
}

/** Has each thread handle the signal, until there is none that has not. */
function signalAll(words: BigInt64Array): string | undefined {
  const done = new Set<number>();
  for (;;) {
    const threads = threadIds();
    if (typeof threads === "string") return threads;
    const left = threads.filter((each) => !done.has(each));
    if (left.length === 0) return undefined;
    for (const thread of left) {
      if (!signalOne(thread, words)) return `thread ${thread} does not handle a signal`;
      if (words[ERROR_WORD] !== 0n) {
        return `thread ${thread} is refused it: ${errnoName(-Number(words[ERROR_WORD]))}`;
      }
      done.add(thread);
    }
  }
}

/** Has one thread handle the signal. Returns whether it has, or has ended. */
function signalOne(thread: number, words: BigInt64Array): boolean {
  const before = words[DONE_WORD];
  const patience = performance.now() + PATIENCE_MS;
  const { tgkill } = SYSTEM_CALLS;
  let signal = SIGNAL;
  while (words[DONE_WORD] === before) {
    const result = systemCall(tgkill, BigInt(Deno.pid), BigInt(thread), BigInt(signal));
    if (result === -ESRCH) return true;
    if (result < 0 || performance.now() > patience) return false;
    // From now on only whether it is still there.
    signal = 0;
    if (words[DONE_WORD] === before) libc().poll(new Uint8Array(0), 0n, 1);
  }
  return true;
}

/** Where `struct linux_dirent64` has its length and its name. */
const LENGTH_AT = 16;
const NAME_AT = 19;

/** The ids of the threads of this process, or why they cannot be told. */
export function threadIds(): readonly number[] | string {
  const path = "/proc/self/task";
  const folder = libc().open(cString(path), O_RDONLY | O_CLOEXEC, 0);
  if (folder < 0) return `${path} cannot be opened: ${errnoName(errno())}`;
  const ids: number[] = [];
  const listing = new Uint8Array(4096);
  const view = new DataView(listing.buffer);
  for (;;) {
    const length = libc().getdents64(folder, listing, BigInt(listing.length));
    if (length <= 0) break;
    for (let at = 0; at < length; at += view.getUint16(at + LENGTH_AT, true)) {
      const end = listing.indexOf(0, at + NAME_AT);
      const id = Number(new TextDecoder().decode(listing.subarray(at + NAME_AT, end)));
      if (id > 0) ids.push(id);
    }
  }
  libc().close(folder);
  return ids;
}
