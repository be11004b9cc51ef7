/**
 * A poll source whose failures end the session of the peer that they belong to, and nothing else.
 *
 * Expected failures are errors of the host on a peer's behalf: descriptors run out, a socket refuses a call. A peer
 * that can cause any other exception has found a bug; the guest's IOMMU is served all the same.
 */
import type { PollSource } from "./poll_source.ts";
import { OsError, type PollSet } from "./host/mod.ts";
import type { Log } from "./log.ts";

/** A poll source whose methods do not throw. */
export class GuardedPollSource implements PollSource {
  /** Times that something failed. */
  failures = 0;
  readonly #inner: PollSource;
  readonly #log: Log;

  /** Guards a poll source, and logs what fails. */
  constructor(inner: PollSource, log: Log) {
    this.#inner = inner;
    this.#log = log;
  }

  /** The name of the poll source. */
  get name(): string {
    return this.#inner.name;
  }

  /** Called when the poll source has to be served although no descriptor is ready. */
  get onDue(): () => void {
    return this.#inner.onDue;
  }

  set onDue(onDue: () => void) {
    this.#inner.onDue = onDue;
  }

  /** Whether the poll source's rings must be looked at from time to time. */
  get mustPoll(): boolean {
    return this.#inner.mustPoll;
  }

  /** Adds the descriptors of the poll source. */
  addTo(poll: PollSet): void {
    this.#inner.addTo(poll);
  }

  /** Calls `look` of the poll source. */
  look(poll: PollSet): void {
    try {
      this.#inner.look(poll);
    } catch (error) {
      this.#failed(error);
    }
  }

  /** Calls `serve` of the poll source. Returns whether there was work; not if that failed. */
  serve(): boolean {
    try {
      return this.#inner.serve();
    } catch (error) {
      this.#failed(error);
      return false;
    }
  }

  /** Calls `setNotifications` of the poll source. Returns whether there is work already; not if that failed. */
  setNotifications(on: boolean): boolean {
    try {
      return this.#inner.setNotifications(on);
    } catch (error) {
      this.#failed(error);
      return false;
    }
  }

  /** Ends the poll source's session. */
  endSession(): void {
    try {
      this.#inner.endSession();
    } catch (error) {
      this.#tell("Cannot end the session", error);
    }
  }

  /** Ends the poll source. */
  close(): void {
    try {
      this.#inner.close();
    } catch (error) {
      this.#tell("Cannot close", error);
    }
  }

  #failed(error: unknown): void {
    this.failures++;
    this.#tell("The session is ended", error);
    this.endSession();
  }

  #tell(what: string, error: unknown): void {
    logFailure(this.#log, `${what} of ${this.#inner.name}`, error);
  }
}

/**
 * Sessions that were ended because something failed, by what: the device's own, as `iommu`, and those of poll sources, by
 * name. Those without failures are left out.
 *
 * @param own The device's own.
 */
export function failuresOf(
  own: number,
  sources: readonly GuardedPollSource[],
): Readonly<Record<string, number>> {
  const failures: Record<string, number> = {};
  if (own > 0) failures.iommu = own;
  for (const each of sources) if (each.failures > 0) failures[each.name] = each.failures;
  return failures;
}

/**
 * Logs a failure, limited in rate: an error of the host as one line, a bug with its stack.
 *
 * @param what The beginning of the line, of the same few.
 */
export function logFailure(log: Log, what: string, error: unknown): void {
  if (error instanceof OsError) log.warnLimited(what, `${what}: ${error.message}`);
  else log.errorLimited(what, `${what}: ${stackOf(error).replaceAll(/\n\s*/g, " ")}`);
}

function stackOf(error: unknown): string {
  return error instanceof Error ? error.stack ?? error.message : String(error);
}
