/** Privileges and limits of the process: capabilities, descriptors, core dumps, who may trace it. */
import { RLIMIT_NOFILE } from "../host/constants.ts";
import type { ThreadCall } from "../host/every_thread.ts";
import { addressOf } from "../host/libc.ts";
import { errnoName } from "../host/os_error.ts";
import { SYSTEM_CALLS, systemCall } from "../host/system_calls.ts";
import type { SandboxPolicy } from "./policy.ts";

/** Most descriptors: a device, its memory and its rings take some twenty. */
const DESCRIPTORS = 8192n;
const RLIMIT_CORE = 4;
const PR_SET_DUMPABLE = 4n;

/** `_LINUX_CAPABILITY_VERSION_3`. */
const CAPABILITY_VERSION = 0x2008_0522;
// Capabilities (linux/capability.h).
const CAP_CHOWN = 0;
const CAP_DAC_OVERRIDE = 1;
const CAP_IPC_LOCK = 14;

/** Words of `struct __user_cap_data_struct`: effective, permitted and inheritable of 32 capabilities each. */
const EFFECTIVE = 0;
const PERMITTED = 1;
const INHERITABLE = 2;
const SET_WORDS = 3;

/** The capabilities that a policy needs, if the process has them. */
function needed(policy: SandboxPolicy): number {
  const uses = policy.unixSockets || policy.writes.length > 0 || policy.makesSockets.length > 0 ||
    policy.removesSockets.length > 0;
  return (policy.setsGroups ? 1 << CAP_CHOWN : 0) | (uses ? 1 << CAP_DAC_OVERRIDE : 0) |
    (policy.locksMemory ? 1 << CAP_IPC_LOCK : 0);
}

/** A call that drops all capabilities but those that a policy needs, and the memory that it refers to. */
export interface CapabilityDrop {
  /** Undefined where there are none to be dropped. */
  readonly call: ThreadCall | undefined;
  readonly memory: readonly ArrayBuffer[];
}

/** Drops capabilities. Returns why it cannot, in a few words. */
export function dropCapabilities(policy: SandboxPolicy): CapabilityDrop | string {
  const header = Uint32Array.of(CAPABILITY_VERSION, 0);
  const sets = new Uint32Array(2 * SET_WORDS);
  const memory = [header.buffer, sets.buffer];
  const [at, of] = memory.map(addressOf);
  const result = systemCall(SYSTEM_CALLS.capget, at, of);
  if (result < 0) return `capget failed: ${errnoName(-result)}`;
  // A process without any may not be allowed the call.
  if (sets.every((word) => word === 0)) return { call: undefined, memory: [] };
  const kept = sets[PERMITTED] & needed(policy);
  sets.fill(0);
  sets[EFFECTIVE] = kept;
  sets[PERMITTED] = kept;
  sets[INHERITABLE] = 0;
  return { call: [SYSTEM_CALLS.capset, at, of], memory };
}

/** Limits descriptors and core dumps, and keeps other processes from tracing this one. Returns why it cannot. */
export function limitProcess(): string | undefined {
  const limit = new BigUint64Array(2);
  const { prlimit64, prctl } = SYSTEM_CALLS;
  const resource = BigInt(RLIMIT_NOFILE);
  let result = systemCall(prlimit64, 0n, resource, 0n, addressOf(limit.buffer));
  if (result === 0) {
    for (const i of [0, 1]) if (limit[i] > DESCRIPTORS) limit[i] = DESCRIPTORS;
    result = systemCall(prlimit64, 0n, resource, addressOf(limit.buffer));
  }
  if (result < 0) return `descriptors cannot be limited: ${errnoName(-result)}`;
  limit.fill(0n);
  result = systemCall(prlimit64, 0n, BigInt(RLIMIT_CORE), addressOf(limit.buffer));
  if (result < 0) return `core dumps cannot be switched off: ${errnoName(-result)}`;
  result = systemCall(prctl, PR_SET_DUMPABLE, 0n);
  return result < 0 ? `prctl failed: ${errnoName(-result)}` : undefined;
}
