/** `GET /v1/version` and `GET /v1/health`: what answers, and whether it serves. */
import type { ApiContext } from "./context.ts";

/** The answer to `GET /v1/version`. */
export interface VersionState {
  /** Version of the program. */
  readonly version: string;
  /** Version of the API: what the paths begin with. */
  readonly api: string;
}

/** The answer to `GET /v1/health`. That there is one says that the loop which serves the guest gets around. */
export interface HealthState {
  /** `ok`, or `failing` where a session was ended because something failed; `GET /v1/state` has the counts. */
  readonly status: "ok" | "failing";
  /** Whether a front end is connected. */
  readonly connected: boolean;
}

/** `GET /v1/version`. */
export function version(context: ApiContext): VersionState {
  return { version: context.version, api: "v1" };
}

/** `GET /v1/health`. */
export function health({ connected, failures = {} }: ApiContext): HealthState {
  return { status: Object.keys(failures).length === 0 ? "ok" : "failing", connected };
}
