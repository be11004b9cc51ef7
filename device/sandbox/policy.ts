/** What a process needs after it has entered the sandbox; everything else is refused. */

/** What a process needs. Paths are those of folders or files; a folder stands for everything below it, too. */
export interface SandboxPolicy {
  /** Paths that are opened for reading, besides `/proc`. */
  readonly reads: readonly string[];
  /** Paths that are opened for reading and writing. Files are neither made nor removed there. */
  readonly writes: readonly string[];
  /** Folders in which sockets are made and removed. */
  readonly makesSockets: readonly string[];
  /** Folders in which sockets that are there already are removed. */
  readonly removesSockets: readonly string[];
  /** Whether unix sockets are made: to listen or connect later. Pairs of them may always be made. */
  readonly unixSockets: boolean;
  /** Whether the network is used: metrics that the runtime exports. */
  readonly network: boolean;
  /** Whether memory is locked (`--frames host`). */
  readonly locksMemory: boolean;
  /** Whether the groups of sockets that are made later are set. */
  readonly setsGroups: boolean;
  /**
   * Whether it starts programs, such as another one of itself, which inherit the sandbox: what the runtime needs to
   * start is allowed, too.
   */
  readonly startsPrograms: boolean;
}

/** A policy that needs nothing. */
export const NOTHING_NEEDED: SandboxPolicy = {
  reads: [],
  writes: [],
  makesSockets: [],
  removesSockets: [],
  unixSockets: false,
  network: false,
  locksMemory: false,
  setsGroups: false,
  startsPrograms: false,
};
