/**
 * `inspect watch`: follows the counters of a running device until told to stop.
 *
 * On a terminal the screen is drawn anew each time, on the terminal's second screen so that what was there comes
 * back; elsewhere each time adds plain lines.
 *
 * @module
 */
import type { State } from "../api/mod.ts";
import type { ApiClient } from "./api_client.ts";
import { type Sample, watchLines, watchScreen } from "./watch_text.ts";

/** Enters the second screen and hides the cursor; and back. */
const ENTER = "\x1b[?1049h\x1b[?25l";
const LEAVE = "\x1b[?25h\x1b[?1049l";
/** To the top left; clears to the end of the line; clears to the end of the screen. */
const HOME = "\x1b[H";
const CLEAR_LINE = "\x1b[K";
const CLEAR_REST = "\x1b[J";

/** How to watch. */
export interface WatchOptions {
  /** Milliseconds between two looks. */
  readonly interval: number;
  /** Looks, or undefined for no end. */
  readonly count?: number;
  /** Whether to draw on a terminal. */
  readonly isTerminal: boolean;
  /** Takes what is to be shown. */
  readonly write: (text: string) => Promise<void> | void;
}

/**
 * Shows rates until SIGINT or SIGTERM, or for as often as asked.
 *
 * @throws {CommandError} If the device stops answering.
 */
export async function watch(client: ApiClient, options: WatchOptions): Promise<void> {
  const { interval, count = Infinity, isTerminal, write } = options;
  const stop = Promise.withResolvers<void>();
  let isStopped = false;
  function end(): void {
    isStopped = true;
    stop.resolve();
  }
  Deno.addSignalListener("SIGINT", end);
  Deno.addSignalListener("SIGTERM", end);
  try {
    if (isTerminal) await write(ENTER);
    let before = await sample(client);
    for (let i = 0; i < count && !isStopped; i++) {
      await pause(interval, stop.promise);
      if (isStopped) break;
      const now = await sample(client);
      if (isTerminal) await write(screenText(watchScreen(before, now)));
      else await write(watchLines(before, now).map((line) => `${line}\n`).join(""));
      before = now;
    }
  } finally {
    if (isTerminal) await write(LEAVE);
    Deno.removeSignalListener("SIGINT", end);
    Deno.removeSignalListener("SIGTERM", end);
  }
}

async function sample(client: ApiClient): Promise<Sample> {
  return { state: await client.get<State>("/v1/state"), time: performance.now() };
}

/** A screen that overwrites the one before without flicker. */
function screenText(lines: readonly string[]): string {
  return HOME + lines.map((line) => `${line}${CLEAR_LINE}\r\n`).join("") + CLEAR_REST;
}

/** Waits for so long, or until told otherwise. */
async function pause(milliseconds: number, until: Promise<void>): Promise<void> {
  const timeout = Promise.withResolvers<void>();
  const timer = setTimeout(timeout.resolve, milliseconds);
  await Promise.race([timeout.promise, until]);
  clearTimeout(timer);
}
