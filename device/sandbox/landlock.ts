/**
 * Landlock: what may be opened, made and removed in the file system, and that no TCP port, abstract socket or process
 * outside is reached.
 *
 * Files and sockets that are open already stay as they are. Not covered by any version used here: `stat`, and connecting
 * to a socket that has a path.
 */
import { O_CLOEXEC } from "../host/constants.ts";
import { Descriptor } from "../host/descriptor.ts";
import { addressOf, cString, libc } from "../host/libc.ts";
import { errnoName } from "../host/os_error.ts";
import { SYSTEM_CALLS, systemCall } from "../host/system_calls.ts";
import type { SandboxPolicy } from "./policy.ts";

// Rights (`LANDLOCK_ACCESS_FS_…` of linux/landlock.h).
const EXECUTE = 1 << 0;
const WRITE_FILE = 1 << 1;
const READ_FILE = 1 << 2;
const READ_DIR = 1 << 3;
const REMOVE_FILE = 1 << 5;
const MAKE_SOCK = 1 << 9;
const TRUNCATE = 1 << 14;
const IOCTL_DEV = 1 << 15;
/** Rights that a file can have; the others are those of folders. */
const OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;
const ALL = 0xffff;
/** `LANDLOCK_ACCESS_NET_BIND_TCP | LANDLOCK_ACCESS_NET_CONNECT_TCP`. */
const ALL_TCP = 3n;
/** `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | LANDLOCK_SCOPE_SIGNAL`. */
const ALL_SCOPES = 3n;
const SCOPE_SOCKETS = 1n;

/** The rights that each version of Landlock knows, as a mask, from version 1 on; all from the last one on. */
const KNOWN = [0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff];
/** `LANDLOCK_CREATE_RULESET_VERSION`. */
const ASK_VERSION = 1n;
/** `LANDLOCK_RULE_PATH_BENEATH`. */
const PATH_BENEATH = 1n;
const O_PATH = 0x20_0000;
/** Versions that first know TCP, scopes, and signals among threads whose domains differ. */
const VERSION_TCP = 4;
const VERSION_SCOPES = 6;
const VERSION_OWN_THREADS = 7;

/** The version that the kernel has, or why it has none, in a few words. */
export function landlockVersion(): number | string {
  const version = systemCall(SYSTEM_CALLS.landlock_create_ruleset, 0n, 0n, ASK_VERSION);
  return version > 0 ? version : `the kernel has none (${errnoName(-version)})`;
}

/** What a policy lets the file system be used for: rights by path. */
export function rightsOf(policy: SandboxPolicy): ReadonlyMap<string, number> {
  const rights = new Map<string, number>();
  function add(paths: readonly string[], some: number): void {
    for (const path of paths) rights.set(path, (rights.get(path) ?? 0) | some);
  }
  const read = READ_FILE | READ_DIR;
  // Of processes that are not in the sandbox, only what everybody may see: Landlock refuses the rest.
  add(["/proc"], read);
  add(policy.reads, read | (policy.startsPrograms ? EXECUTE : 0));
  add(policy.writes, read | WRITE_FILE | TRUNCATE);
  add(policy.makesSockets, MAKE_SOCK | REMOVE_FILE);
  add(policy.removesSockets, REMOVE_FILE);
  return rights;
}

/**
 * Makes the rules of a policy. A path that is not there gets none.
 *
 * @returns The ruleset, for `landlock_restrict_self`, or why there is none, in a few words.
 */
export function makeRuleset(policy: SandboxPolicy, version: number): Descriptor | string {
  const known = KNOWN[Math.min(version, KNOWN.length) - 1];
  const attributes = new BigUint64Array(
    version >= VERSION_SCOPES ? 3 : version >= VERSION_TCP ? 2 : 1,
  );
  attributes[0] = BigInt(ALL & known);
  if (version >= VERSION_TCP && !policy.network) attributes[1] = ALL_TCP;
  // Before, threads with domains of their own could not signal each other.
  if (version >= VERSION_SCOPES) {
    attributes[2] = version >= VERSION_OWN_THREADS ? ALL_SCOPES : SCOPE_SOCKETS;
  }
  const number = systemCall(
    SYSTEM_CALLS.landlock_create_ruleset,
    addressOf(attributes.buffer),
    BigInt(attributes.byteLength),
  );
  if (number < 0) return `landlock_create_ruleset failed: ${errnoName(-number)}`;
  const ruleset = new Descriptor(number);
  for (const [path, rights] of rightsOf(policy)) {
    const problem = addRule(ruleset, path, rights & known);
    if (problem === undefined) continue;
    ruleset.close();
    return problem;
  }
  return ruleset;
}

/** Adds a rule. Returns why it cannot be added, in a few words. */
function addRule(ruleset: Descriptor, path: string, rights: number): string | undefined {
  const number = libc().open(cString(path), O_PATH | O_CLOEXEC, 0);
  if (number < 0) return undefined;
  using file = new Descriptor(number);
  // A folder takes all rights, a file only those of files.
  const rule = new DataView(new ArrayBuffer(12));
  rule.setInt32(8, file.number, true);
  let result = 0;
  for (const mask of [ALL, OF_FILES]) {
    rule.setBigUint64(0, BigInt(rights & mask), true);
    const { landlock_add_rule: call } = SYSTEM_CALLS;
    result = systemCall(call, BigInt(ruleset.number), PATH_BENEATH, addressOf(rule.buffer));
    if (result === 0) return undefined;
  }
  return `${path} cannot be allowed: ${errnoName(-result)}`;
}
