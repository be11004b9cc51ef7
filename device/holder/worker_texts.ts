/** What the holder and a worker tell each other in text, and how a process's end is named in the log. */
import type { ProcessEnd } from "../host/mod.ts";

/** What a worker is told at its start. */
export interface WorkerSettings {
  /** Whether a guest waits for it: then it does not warm up first. */
  readonly isAwaited: boolean;
}

/** The settings as bytes. */
export function settingsBytes(settings: WorkerSettings): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(JSON.stringify(settings));
}

/** The settings in bytes of {@linkcode settingsBytes}. */
export function readSettings(bytes: Uint8Array): WorkerSettings {
  return JSON.parse(new TextDecoder().decode(bytes));
}

/** What a worker offers, to be compared. */
export function offerText(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

/** How a process has ended, in words. */
export function endText({ code, signal }: ProcessEnd): string {
  if (signal !== undefined) return `killed by signal ${signal}`;
  return code === undefined ? "it is not known how" : `exit code ${code}`;
}
