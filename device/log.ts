/**
 * Log lines: one line an event, on standard error, with a level.
 *
 * What a guest or a front end provokes may come a million times, so a {@linkcode Log} also has a limit:
 * of one kind of line, a burst is written and then one a second, with the number left out.
 *
 * A log never fails: a line that cannot be written is lost, and nothing else.
 *
 * @module
 */

/** Levels, most important first. */
export const LOG_LEVELS = ["error", "warn", "info", "debug"] as const;

/** One of {@linkcode LOG_LEVELS}. */
export type LogLevel = typeof LOG_LEVELS[number];

/** How many lines of one limited kind are written before the limit holds. */
const BURST = 10;
/** How long in milliseconds one further line of a limited kind stands for all of its kind. */
const INTERVAL = 1000;

/** What a limited kind of line has used up. */
interface Limit {
  written: number;
  leftOut: number;
  last: number;
}

/**
 * A text on one line: line breaks and other control characters, which a path or an argument may contain, are shown as
 * `\\u{…}`.
 */
export function oneLine(text: string): string {
  return text.replace(/[\p{Cc}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.charCodeAt(0).toString(16)}}`);
}

/** Where log lines go. */
export class Log {
  readonly #level: number;
  readonly #write: (line: string) => void;
  readonly #now: () => number;
  readonly #limits = new Map<string, Limit>();

  /**
   * A log that writes what is important enough.
   *
   * @param level The least important level that is written.
   * @param write Takes a finished line without its newline; standard error by default, which may make the process
   * wait. What it throws is ignored.
   * @param now A clock in milliseconds.
   */
  constructor(
    level: LogLevel = "info",
    write: (line: string) => void = console.error,
    now: () => number = () => performance.now(),
  ) {
    this.#level = LOG_LEVELS.indexOf(level);
    this.#write = write;
    this.#now = now;
  }

  /** Whether lines of a level are written; ask before putting an expensive line together. */
  enabled(level: LogLevel): boolean {
    return LOG_LEVELS.indexOf(level) <= this.#level;
  }

  /** Something failed that the program cannot mend. */
  error(message: string): void {
    this.#line("error", message);
  }

  /** Something is wrong, usually with the peer, and the program goes on. */
  warn(message: string): void {
    this.#line("warn", message);
  }

  /** Something happened that a user wants to know of. */
  info(message: string): void {
    this.#line("info", message);
  }

  /** Something happened that helps to find a fault. */
  debug(message: string): void {
    this.#line("debug", message);
  }

  /**
   * A warning of a kind that a hostile peer can provoke at will: limited in rate.
   *
   * @param kind Which limit it counts against; a constant, never text of the peer's.
   */
  warnLimited(kind: string, message: string): void {
    this.#limited("warn", kind, message);
  }

  /** An error of such a kind. */
  errorLimited(kind: string, message: string): void {
    this.#limited("error", kind, message);
  }

  /** What a user wants to know of, of such a kind. */
  infoLimited(kind: string, message: string): void {
    this.#limited("info", kind, message);
  }

  #limited(level: LogLevel, kind: string, message: string): void {
    if (!this.enabled(level)) return;
    let limit = this.#limits.get(kind);
    if (limit === undefined) {
      limit = { written: 0, leftOut: 0, last: 0 };
      this.#limits.set(kind, limit);
    }
    const now = this.#now();
    if (limit.written >= BURST && now - limit.last < INTERVAL) {
      limit.leftOut++;
      return;
    }
    const more = limit.leftOut > 0 ? ` (and ${limit.leftOut} more like it)` : "";
    limit.written++;
    limit.leftOut = 0;
    limit.last = now;
    this.#line(level, message + more);
  }

  #line(level: LogLevel, message: string): void {
    if (!this.enabled(level)) return;
    try {
      this.#write(`viommu: ${level}: ${oneLine(message)}`);
    } catch {
      // There is no place left to say so.
    }
  }
}
