/**
 * The sandbox: a process gives up what it does not need.
 *
 * May import `host/`, `log.ts` and `poll_source.ts`.
 *
 * @module
 */
export { enterSandbox, type Sandbox, type SandboxPart } from "./enter.ts";
export { NOTHING_NEEDED, type SandboxPolicy } from "./policy.ts";
export { Refusals } from "./refusals.ts";
