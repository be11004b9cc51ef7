/**
 * The boundary between the loop and what it serves besides the IOMMU: what fails behind it ends the session of the peer
 * it was done for, and nothing else.
 *
 * What can fail there is the host on a peer's behalf: descriptors run out, a peer's socket refuses what sockets do. That
 * no peer can do worse is a matter of the code behind the boundary. Were it wrong, a guest would still keep its IOMMU.
 *
 * @module
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

  /** Called when it is time to look, and no descriptor says so. */
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

  /** Adds what the poll source has to be woken for. */
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
 * Logs what failed, limited in rate: in one line what the host refused, and with its stack what is a fault of ours.
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
