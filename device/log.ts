/**
 * Log lines: one line for each event, with a level, on standard error.
 *
 * A guest or a front end may cause an event a million times, so a {@linkcode Log} limits lines by kind: it writes a
 * burst, and then one line a second with the number of those left out.
 *
 * A log never fails: a line that cannot be written is dropped.
 */

/** Levels, most important first. */
export const LOG_LEVELS = ["error", "warn", "info", "debug", "trace"] as const;

/** One of {@linkcode LOG_LEVELS}. */
export type LogLevel = typeof LOG_LEVELS[number];

/** Lines of one limited kind that are written before the limit applies. */
const BURST = 10;
/** Milliseconds between two further lines of a limited kind. */
const INTERVAL = 1000;

/** The state of a limited kind. */
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

/** A log with levels and limits. */
export class Log {
  readonly #level: number;
  readonly #write: (line: string) => void;
  readonly #now: () => number;
  readonly #limits = new Map<string, Limit>();

  /**
   * A log that writes lines from a level on.
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

  /** Whether lines of a level are written; check it before building an expensive line. */
  enabled(level: LogLevel): boolean {
    return LOG_LEVELS.indexOf(level) <= this.#level;
  }

  /** Logs an error that the program cannot correct. */
  error(message: string): void {
    this.#line("error", message);
  }

  /** Logs a problem, usually of a peer, that does not stop the program. */
  warn(message: string): void {
    this.#line("warn", message);
  }

  /** Logs an event that is of interest to a user. */
  info(message: string): void {
    this.#line("info", message);
  }

  /** Logs an event that helps to debug. */
  debug(message: string): void {
    this.#line("debug", message);
  }

  /**
   * Logs a warning that a hostile peer can cause at will, limited in rate.
   *
   * @param kind Which limit it counts against; a constant, never text of the peer's.
   */
  warnLimited(kind: string, message: string): void {
    this.#limited("warn", kind, message);
  }

  /** Logs each event of the guest's requests and accesses. */
  trace(message: string): void {
    this.#line("trace", message);
  }

  /** Logs an error, limited in rate. */
  errorLimited(kind: string, message: string): void {
    this.#limited("error", kind, message);
  }

  /** Logs an event of interest, limited in rate. */
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
      // The failure cannot be logged either.
    }
  }
}
