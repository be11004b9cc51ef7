/**
 * A look at the process that serves for `serve --supervise`, and its death.
 *
 * @module
 */
import type { ProcessState, State } from "../../../device/api/mod.ts";
import { until } from "../../until.ts";

/** What the API tells; asked again where the process that was asked has ended meanwhile. */
export async function stateOf(api: string): Promise<State> {
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path: api } });
  let state: State | undefined;
  await until(async () => {
    try {
      state = await (await fetch("http://127.0.0.1/v1/state", { client })).json();
      return true;
    } catch (error) {
      if (error instanceof TypeError) return false;
      throw error;
    }
  }, "a process answers");
  return state!;
}

/** What the API tells of the process that serves. */
export async function processOf(api: string): Promise<ProcessState> {
  return (await stateOf(api)).process!;
}

/** The process that serves, once another one is ready to take its place. */
export async function withSpare(api: string): Promise<ProcessState> {
  let process = await processOf(api);
  await until(async () => {
    process = await processOf(api);
    return process.spare;
  }, "a spare process is ready");
  return process;
}

/** Kills it on the spot. */
export function killWorker({ pid }: ProcessState): void {
  Deno.kill(pid, "SIGKILL");
}
