/**
 * Survives SIGBUS in shared memory.
 *
 * A peer that shares a memory file can truncate it, and touching a mapped page beyond its end is SIGBUS, which ends
 * the process. A check beforehand does not help: the file may shrink right after it. JavaScript cannot run in a signal
 * handler, so the handler is a few machine instructions: if the address lies in a mapping of the table below, it maps
 * private zeros over that page and the rest of the mapping, and counts; the access is then repeated. (One page at a
 * time would let a peer use up the number of mappings of the process.) Any other SIGBUS gets the default action when
 * it occurs again, right after.
 *
 * Written for x86-64; elsewhere nothing is installed, and only sealed files are safe.
 */
import { handleSignal } from "./signal_code.ts";

const SIGBUS = 7;

// The data behind the code: 32 zero bytes (the default action), count u64 at 32, the table at 64.
const DATA_BYTES = 65536;
const COUNT_WORD = 4;
const TABLE_WORD = 8;
/** Words of an entry: first byte, byte behind the last, bytes of a page. An entry whose second is 0 ends the table. */
const ENTRY_WORDS = 3;
const MOST_ENTRIES = Math.floor((DATA_BYTES / 8 - TABLE_WORD) / ENTRY_WORDS) - 1;

const HANDLER = [
  "488b7e10488d0d35100000", // mov rdi, [rsi+16] (si_addr); lea rcx, [table]
  "488b51084885d2744a", // look: mov rdx, [rcx+8]; test rdx, rdx; je foreign
  "4839d77305483b397306", // cmp rdi, rdx; jae next; cmp rdi, [rcx]; jae ours
  "4883c118ebe7", // next: add rcx, 24; jmp look
  "4c8b491049f7d94c21cf4889d64829fe", // ours: mov r9, [rcx+16]; neg r9; and rdi, r9; mov rsi, rdx; sub rsi, rdi
  "ba0300000041ba3240000049c7c0ffffffff4531c9b8090000000f05", // mmap(rdi, rsi, READ|WRITE, PRIVATE|FIXED|ANONYMOUS|NORESERVE, -1, 0)
  "4885c07809f048ff05c30f0000c3", // test rax, rax; js foreign; lock inc [count]; ret
  "b80d000000bf07000000488d35910f000031d241ba080000000f05c3", // foreign: rt_sigaction(SIGBUS, default, NULL, 8); ret
];

let data: BigUint64Array | undefined;
let entries = 0;

/**
 * Guards a mapping from its first byte to the byte before `end`, in pages of `page` bytes. The mapping begins
 * and ends at such a page.
 *
 * @returns whether it is guarded: not on other machines than x86-64, nor beyond some 2700 mappings, nor if the host
 * refuses a system call that it needs.
 */
export function guardMapping(first: bigint, end: bigint, page: number): boolean {
  if (entries >= MOST_ENTRIES) return false;
  data ??= install();
  if (data === undefined) return false;
  data.set([first, end, BigInt(page), 0n, 0n], TABLE_WORD + entries * ENTRY_WORDS);
  entries++;
  return true;
}

/** Ends the guard of a mapping, by its first byte; does nothing if there is none. */
export function unguardMapping(first: bigint): void {
  if (data === undefined) return;
  for (let entry = 0; entry < entries; entry++) {
    const at = TABLE_WORD + entry * ENTRY_WORDS;
    if (data[at] !== first) continue;
    entries--;
    const last = TABLE_WORD + entries * ENTRY_WORDS;
    data.copyWithin(at, last, last + ENTRY_WORDS);
    data.fill(0n, last, last + ENTRY_WORDS);
    return;
  }
}

/** How often a mapping was replaced by zeros since the process began, because a peer truncated a file. */
export function truncations(): number {
  return data === undefined ? 0 : Number(data[COUNT_WORD]);
}

/** Installs the handler. Returns the words behind its code, or `undefined` where there is none. */
function install(): BigUint64Array | undefined {
  const behind = handleSignal(SIGBUS, { x86_64: HANDLER }, DATA_BYTES);
  return typeof behind === "string" ? undefined : new BigUint64Array(behind);
}
