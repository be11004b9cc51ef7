/** Enters the sandbox: the process gives up what it does not need, in all of its threads, and cannot get it back. */
import type { Descriptor } from "../host/descriptor.ts";
import { inEveryThread, type ThreadCall } from "../host/every_thread.ts";
import { addressOf } from "../host/libc.ts";
import { errnoName } from "../host/os_error.ts";
import { SYSTEM_CALLS, systemCall } from "../host/system_calls.ts";
import { makeFilter } from "./filter.ts";
import { landlockVersion, makeRuleset } from "./landlock.ts";
import type { SandboxPolicy } from "./policy.ts";
import { dropCapabilities, limitProcess } from "./privileges.ts";
import { Refusals } from "./refusals.ts";

const PR_SET_NO_NEW_PRIVS = 38n;
const SET_MODE_FILTER = 1n;
/** `SECCOMP_FILTER_FLAG_TSYNC`: the filter is that of all threads. */
const TSYNC = 1n;

/** Permissions of the runtime that are given up. FFI cannot be: addresses of buffers are asked for with it. */
const PERMISSIONS = ["net", "read", "write", "run", "env", "sys"] as const;

/** Those that the runtime asks for before it starts a program. */
const TO_START: readonly string[] = ["run", "read", "env"];

/** A part of the sandbox. */
export type SandboxPart = "limits" | "landlock" | "capabilities" | "seccomp" | "reports";

/** What is in force. */
export interface Sandbox {
  /** The parts that are. */
  readonly inForce: readonly SandboxPart[];
  /** The parts that are not, and why in a few words. */
  readonly missing: Readonly<Partial<Record<SandboxPart, string>>>;
  /** Refused calls; undefined where nothing counts them. */
  readonly refusals: Refusals | undefined;
}

/**
 * Gives up everything that a policy does not name. What the kernel has not is left out, and reported as missing.
 *
 * Threads and processes that begin later are in the same sandbox. Entering a second one restricts further.
 */
export function enterSandbox(policy: SandboxPolicy): Sandbox {
  const inForce: SandboxPart[] = [];
  const missing: Partial<Record<SandboxPart, string>> = {};
  function note(part: SandboxPart, problem: string | undefined): void {
    if (problem === undefined) inForce.push(part);
    else missing[part] = problem;
  }
  note("limits", limitProcess());
  restrictThreads(policy, note);
  // A program that is started has no handler: refused calls would end it.
  const refusals = policy.startsPrograms
    ? "programs that are started have no handler"
    : Refusals.install();
  const hasHandler = typeof refusals !== "string";
  const problem = filterCalls(policy, hasHandler);
  note("seccomp", problem);
  note("reports", problem ?? (hasHandler ? undefined : refusals));
  for (const name of PERMISSIONS) {
    if (!policy.startsPrograms || !TO_START.includes(name)) Deno.permissions.revokeSync({ name });
  }
  return { inForce, missing, refusals: hasHandler ? refusals : undefined };
}

/** Applies what concerns single threads to all of them. */
function restrictThreads(
  policy: SandboxPolicy,
  note: (part: SandboxPart, problem: string | undefined) => void,
): void {
  // Without it, the kernel lets only root restrict itself.
  const calls: ThreadCall[] = [[SYSTEM_CALLS.prctl, PR_SET_NO_NEW_PRIVS, 1n]];
  const ruleset = rulesetOf(policy);
  if (typeof ruleset !== "string") {
    calls.push([SYSTEM_CALLS.landlock_restrict_self, BigInt(ruleset.number)]);
  }
  const drop = dropCapabilities(policy);
  if (typeof drop !== "string" && drop.call !== undefined) calls.push(drop.call);
  const problem = inEveryThread(calls);
  note("landlock", typeof ruleset === "string" ? ruleset : problem);
  note("capabilities", typeof drop === "string" ? drop : problem);
  if (typeof ruleset !== "string") ruleset.close();
}

/** The rules about files, or why there are none. */
function rulesetOf(policy: SandboxPolicy): Descriptor | string {
  const version = landlockVersion();
  return typeof version === "string" ? version : makeRuleset(policy, version);
}

/** Filters the system calls of all threads from now on. Returns why not, in a few words. */
function filterCalls(policy: SandboxPolicy, hasHandler: boolean): string | undefined {
  const { arch: architecture } = Deno.build;
  const filter = makeFilter(policy, { architecture, pid: Deno.pid, hasHandler });
  // struct sock_fprog: length u16, pointer u64 at 8.
  const program = new DataView(new ArrayBuffer(16));
  program.setUint16(0, filter.length / 8, true);
  program.setBigUint64(8, addressOf(filter.buffer), true);
  const { seccomp } = SYSTEM_CALLS;
  const result = systemCall(seccomp, SET_MODE_FILTER, TSYNC, addressOf(program.buffer));
  if (result < 0) return errnoName(-result);
  return result === 0 ? undefined : `thread ${result} has a filter of its own`;
}
