/** What `serve` needs in its sandbox, from its options, and what is said of it. */
import type { SandboxState } from "../api/mod.ts";
import type { Log } from "../log.ts";
import { enterSandbox, type Sandbox, type SandboxPolicy } from "../sandbox/mod.ts";
import { CommandError } from "./errors.ts";
import type { SandboxMode, ServeChoices } from "./serve_options.ts";

/** Files that name servers, ports and certificates. */
const NETWORK_FILES = ["/etc", "/run/systemd/resolve"];

/** What says of a device of the host that is added what it is. */
const SYSFS = "/sys";

/** What `serve` needs once its sockets and files are open. */
export function servePolicy(
  { frontEnd, api, access, endpoints, frames, sandboxPaths }: ServeChoices,
  usesNetwork: boolean,
): SandboxPolicy {
  const sockets = [
    ...[frontEnd.listen, api?.path].filter((path) => path !== undefined),
    ...endpoints.flatMap(({ listens }) => listens),
  ].map(folderOf);
  const added = api?.access === "full"
    ? unique([
      ...sockets,
      ...endpoints.flatMap(({ files }) => files).map(folderOf),
      ...sandboxPaths,
    ])
    : [];
  return {
    reads: [...usesNetwork ? NETWORK_FILES : [], ...added.length > 0 ? [SYSFS] : []],
    writes: added,
    makesSockets: added,
    removesSockets: unique(sockets),
    unixSockets: added.length > 0 || frontEnd.connect !== undefined ||
      endpoints.some(({ connects }) => connects),
    network: usesNetwork,
    // What the kernel pins for a device of the host is charged to who asks for it.
    locksMemory: frames === "host" || endpoints.some(({ isHostDevice }) => isHostDevice === true),
    setsGroups: added.length > 0 && access.group !== undefined,
    startsPrograms: false,
  };
}

/**
 * Enters the sandbox, and logs what is in force.
 *
 * @throws {CommandError} If all of it is asked for and something is missing.
 */
export function confine(mode: SandboxMode, policy: SandboxPolicy, log: Log): Sandbox | undefined {
  if (mode === "off") {
    log.debug("The sandbox is off (--sandbox)");
    return undefined;
  }
  const sandbox = enterSandbox(policy);
  const missing = Object.entries(sandbox.missing).map(([part, why]) => `${part}, ${why}`);
  if (missing.length > 0 && mode === "strict") {
    throw new CommandError(
      `Cannot serve with --sandbox strict: not in force are ${missing.join("; ")}; ` +
        "--sandbox on takes what there is",
    );
  }
  const inForce = sandbox.inForce.length === 0 ? "nothing" : sandbox.inForce.join(", ");
  if (missing.length === 0) log.debug(`In force of the sandbox: ${inForce}`);
  else log.warn(`In force of the sandbox: ${inForce}; not in force: ${missing.join("; ")}`);
  return sandbox;
}

/** What the API says of it. */
export function sandboxState(mode: SandboxMode, sandbox: Sandbox | undefined): SandboxState {
  return {
    mode,
    inForce: sandbox?.inForce ?? [],
    missing: sandbox?.missing ?? {},
    refused: sandbox?.refusals?.counts ?? {},
  };
}

/** The folder in which a file is. */
function folderOf(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash < 0 ? "." : path.slice(0, slash + 1);
}

/** Each once. */
function unique(paths: readonly string[]): readonly string[] {
  return [...new Set(paths)];
}
