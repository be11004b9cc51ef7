/**
 * The seccomp filter: a program of classic BPF that decides about each system call by its number and, of some, by an
 * argument.
 *
 * The kernel runs such a program once for each number to see whether it is allowed whatever the arguments, and then no
 * longer (Linux 5.11); so what is called often costs next to nothing, however long the list is.
 */
import { type Architecture, type SystemCallName, systemCallNumbers } from "../host/system_calls.ts";
import {
  ALLOWED,
  ALLOWED_WITH_LOCKS,
  ALLOWED_WITH_NETWORK,
  ALLOWED_WITH_PROGRAMS,
  FATAL,
} from "./allowed_calls.ts";
import type { SandboxPolicy } from "./policy.ts";

// Return values (linux/seccomp.h); the lower 16 bits are data.
const KILL_PROCESS = 0x8000_0000;
const TRAP = 0x0003_0000;
const ERRNO = 0x0005_0000;
const ALLOW = 0x7fff_0000;

const EPERM = 1;
const ENOSYS = 38;

// Instructions (linux/bpf_common.h).
const LOAD = 0x20;
const AND = 0x54;
const JUMP_EQUAL = 0x15;
const JUMP_AT_LEAST = 0x35;
const RETURN = 0x06;

/** Where `struct seccomp_data` has the number, the architecture, and the low halves of the arguments. */
const NUMBER_AT = 0;
const ARCHITECTURE_AT = 4;
const ARGUMENTS_AT = 16;

/** `AUDIT_ARCH_…` (linux/audit.h). */
const AUDIT: Readonly<Record<Architecture, number>> = {
  x86_64: 0xc000_003e,
  aarch64: 0xc000_00b7,
};
/** Numbers from here on are those of the x32 interface. */
const X32 = 0x4000_0000;

const AF_UNIX = 1;
/** AF_INET, AF_INET6, and AF_NETLINK, which tells the C library of addresses. */
const NETWORK_FAMILIES = [2, 10, 16];
/** `O_WRONLY | O_RDWR | O_CREAT | O_TRUNC`, and the part of `O_TMPFILE` that is not `O_DIRECTORY`. */
const O_WRITING = 0x40_0243;
/** `CLONE_THREAD`, and it with each of the `CLONE_NEW…`. */
const CLONE_THREAD = 0x1_0000;
const CLONE_THREAD_AND_NAMESPACES = 0x7e03_0000;
/** `PR_SET_NAME`, `PR_GET_NAME`, and `PR_SET_VMA`, which names memory. */
const HARMLESS_PRCTL = [15, 16, 0x5356_4d41];
/** Types characters on a terminal, as if its user had. */
const TIOCSTI = 0x5412;
const TIOCLINUX = 0x541c;

/** What is done about a call. */
export type Decision = "allow" | "refuse" | "end" | "absent";

/** A call that depends on an argument: `then` if the argument, masked, is one of the values, otherwise `otherwise`. */
interface ArgumentRule {
  readonly argument: number;
  readonly mask?: number;
  readonly values: readonly number[];
  readonly then: Decision;
  readonly otherwise: Decision;
}

/** How refused calls are reported. */
export interface FilterOptions {
  readonly architecture: Architecture;
  /** The process, of which signals are sent to threads. */
  readonly pid: number;
  /**
   * Whether SIGSYS has a handler, which counts refused calls, and ends the process for those of {@linkcode FATAL}. It is
   * told which, counted from 1.
   */
  readonly hasHandler: boolean;
}

/** The program, 8 bytes an instruction. */
export function makeFilter(policy: SandboxPolicy, options: FilterOptions): Uint8Array<ArrayBuffer> {
  const numbers = systemCallNumbers(options.architecture);
  const program = new Program();
  program.add(LOAD, ARCHITECTURE_AT);
  program.add(JUMP_EQUAL, AUDIT[options.architecture], 1, 0);
  program.add(RETURN, KILL_PROCESS);
  program.add(LOAD, NUMBER_AT);
  if (options.architecture === "x86_64") {
    program.add(JUMP_AT_LEAST, X32, 0, 1);
    program.add(RETURN, KILL_PROCESS);
  }
  const rules = rulesOf(policy, options.pid);
  for (const [name, rule] of rules) {
    if (numbers[name] < 0) continue;
    const block = typeof rule === "string"
      ? [[RETURN, valueOf(rule, name, options), 0, 0]]
      : argumentBlock(rule, name, options);
    program.add(JUMP_EQUAL, numbers[name], 0, block.length);
    for (const [code, k, whenTrue, whenFalse] of block) program.add(code, k, whenTrue, whenFalse);
  }
  program.add(RETURN, options.hasHandler ? TRAP : ERRNO | EPERM);
  return program.bytes();
}

/** What is done about each call that the policy has something to say of. */
export function rulesOf(
  policy: SandboxPolicy,
  pid: number,
): ReadonlyMap<SystemCallName, Decision | ArgumentRule> {
  const rules = new Map<SystemCallName, Decision | ArgumentRule>();
  for (const name of FATAL) rules.set(name, "end");
  const allowed = [
    ...ALLOWED,
    ...(policy.network ? ALLOWED_WITH_NETWORK : []),
    ...(policy.locksMemory ? ALLOWED_WITH_LOCKS : []),
  ];
  for (const name of allowed) rules.set(name, "allow");
  const families = [
    ...(policy.unixSockets ? [AF_UNIX] : []),
    ...(policy.network ? NETWORK_FAMILIES : []),
  ];
  rules.set("socket", only(0, families, "refuse"));
  rules.set("socketpair", only(0, [AF_UNIX], "refuse"));
  const thread = only(0, [CLONE_THREAD], "end", CLONE_THREAD_AND_NAMESPACES);
  rules.set("clone", thread);
  // Its flags are in memory, which a filter cannot read: the C library takes `clone` instead.
  rules.set("clone3", "absent");
  rules.set("tgkill", only(0, [pid], "end"));
  // Compares open files of this process; the other process is the second argument, and asking about it takes tracing it.
  rules.set("kcmp", only(0, [pid], "refuse"));
  rules.set("prctl", only(0, HARMLESS_PRCTL, "refuse"));
  rules.set("prlimit64", only(0, [0, pid], "refuse"));
  rules.set("sched_setaffinity", only(0, [0], "refuse"));
  rules.set("ioctl", {
    argument: 1,
    values: [TIOCSTI, TIOCLINUX],
    then: "end",
    otherwise: "allow",
  });
  const reading = only(2, [0], "refuse", O_WRITING);
  rules.set("openat", policy.writes.length > 0 ? "allow" : reading);
  if (policy.startsPrograms) { for (const name of ALLOWED_WITH_PROGRAMS) rules.set(name, "allow"); }
  return rules;
}

/** Allows a call with an argument that is one of some values. */
function only(
  argument: number,
  values: readonly number[],
  otherwise: Decision,
  mask?: number,
): ArgumentRule {
  return { argument, values, then: "allow", otherwise, ...(mask === undefined ? {} : { mask }) };
}

/** The instructions for a call that depends on an argument; each way through them ends with a return. */
function argumentBlock(
  { argument, mask, values, then, otherwise }: ArgumentRule,
  name: SystemCallName,
  options: FilterOptions,
): readonly (readonly number[])[] {
  return [
    [LOAD, ARGUMENTS_AT + 8 * argument, 0, 0],
    ...(mask === undefined ? [] : [[AND, mask, 0, 0]]),
    ...values.map((value, i) => [JUMP_EQUAL, value, values.length - i, 0]),
    [RETURN, valueOf(otherwise, name, options), 0, 0],
    [RETURN, valueOf(then, name, options), 0, 0],
  ];
}

/** What the program returns for a decision. */
function valueOf(decision: Decision, name: SystemCallName, { hasHandler }: FilterOptions): number {
  switch (decision) {
    case "allow":
      return ALLOW;
    case "absent":
      return ERRNO | ENOSYS;
    case "refuse":
      return hasHandler ? TRAP : ERRNO | EPERM;
    case "end":
      return hasHandler ? TRAP | (ENDING.indexOf(name) + 1) : KILL_PROCESS;
  }
}

/** The calls that may end the process, in the order in which the handler counts them. */
export const ENDING: readonly SystemCallName[] = [...FATAL, "clone", "tgkill", "ioctl"];

/** Instructions (`struct sock_filter`). */
class Program {
  readonly #words: number[] = [];

  /** Adds an instruction; a jump goes over so many of those that follow. */
  add(code: number, k: number, whenTrue = 0, whenFalse = 0): void {
    this.#words.push(code | whenTrue << 16 | whenFalse << 24, k);
  }

  /** All of them. */
  bytes(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(Uint32Array.from(this.#words, (word) => word >>> 0).buffer);
  }
}
