/**
 * `inspect watch`: follows the counters of a running device until told to stop.
 *
 * On a terminal the screen is drawn anew each time, on the terminal's second screen so that what was there comes
 * back; elsewhere each time adds plain lines, or the state as a line of JSON.
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
  /** Drawn on a terminal, lines of text, or each state as a line of JSON. */
  readonly form: "screen" | "lines" | "json";
  /** Takes what is to be shown. */
  readonly write: (text: string) => Promise<void> | void;
}

/**
 * Shows rates until SIGINT or SIGTERM, or for as often as asked.
 *
 * @throws {CommandError} If the device stops answering.
 */
export async function watch(client: ApiClient, options: WatchOptions): Promise<void> {
  const { interval, count = Infinity, form, write } = options;
  const stop = Promise.withResolvers<void>();
  let isStopped = false;
  function end(): void {
    isStopped = true;
    stop.resolve();
  }
  Deno.addSignalListener("SIGINT", end);
  Deno.addSignalListener("SIGTERM", end);
  try {
    if (form === "screen") await write(ENTER);
    let before = await sample(client);
    for (let i = 0; i < count && !isStopped; i++) {
      await pause(interval, stop.promise);
      if (isStopped) break;
      const now = await sample(client);
      await write(lookText(form, before, now));
      before = now;
    }
  } finally {
    if (form === "screen") await write(LEAVE);
    Deno.removeSignalListener("SIGINT", end);
    Deno.removeSignalListener("SIGTERM", end);
  }
}

async function sample(client: ApiClient): Promise<Sample> {
  return { state: await client.get<State>("/v1/state"), time: performance.now() };
}

/** What one look shows. */
function lookText(form: WatchOptions["form"], before: Sample, now: Sample): string {
  if (form === "json") return `${JSON.stringify(now.state)}\n`;
  if (form === "screen") return screenText(watchScreen(before, now));
  return watchLines(before, now).map((line) => `${line}\n`).join("");
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
