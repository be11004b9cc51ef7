/**
 * Devices behind the IOMMU that are opened while the IOMMU is served: a process that has died may still listen on their
 * sockets for a moment, and the guest's IOMMU must not wait for that.
 */
import { ServedEndpoints } from "../endpoint/mod.ts";
import { OsError, type PollSet } from "../host/mod.ts";
import type { PollSource } from "../poll_source.ts";
import type { EndpointChoice, EndpointParts } from "./endpoint_choices.ts";
import { openEndpoint } from "./endpoint_control.ts";
import { CommandError } from "./errors.ts";

/** Milliseconds between two attempts. */
const RETRY_MS = 10;
/** Milliseconds after which an endpoint that cannot be opened is given up. */
const PATIENCE_MS = 30_000;

/** Endpoints that are opened one after another. */
export class LateEndpoints implements PollSource {
  readonly name: string = "endpoints to be opened";
  onDue: () => void = () => {};
  /** The endpoints. */
  readonly endpoints: ServedEndpoints;
  readonly #parts: EndpointParts;
  #waiting: readonly EndpointChoice[];
  readonly #began = performance.now();
  #tried = -Infinity;

  /** Endpoints of which none is open. */
  constructor(choices: readonly EndpointChoice[], parts: EndpointParts) {
    this.endpoints = new ServedEndpoints(parts.log);
    this.#parts = parts;
    this.#waiting = choices;
  }

  /** Opens all now. Throws as `openEndpoints` does. */
  openAll(): void {
    for (const choice of this.#waiting) this.#open(choice);
    this.#waiting = [];
  }

  get mustPoll(): boolean {
    return this.#waiting.length > 0;
  }

  addTo(_poll: PollSet): void {}

  look(_poll: PollSet): void {}

  /** Tries those that are not open. */
  serve(): boolean {
    if (this.#waiting.length === 0) return false;
    const now = performance.now();
    if (now - this.#tried < RETRY_MS) return false;
    this.#tried = now;
    const mayWait = now - this.#began < PATIENCE_MS;
    this.#waiting = this.#waiting.filter((choice) => !this.#try(choice, mayWait) && mayWait);
    return true;
  }

  setNotifications(_on: boolean): boolean {
    return false;
  }

  endSession(): void {}

  close(): void {
    this.#waiting = [];
  }

  /** Tries to open an endpoint. Returns whether it is open. */
  #try(choice: EndpointChoice, mayWait: boolean): boolean {
    try {
      this.#open(choice);
      return true;
    } catch (error) {
      if (!(error instanceof CommandError || error instanceof OsError)) throw error;
      if (!mayWait) this.#parts.log.error(error.message);
      return false;
    }
  }

  #open(choice: EndpointChoice): void {
    this.endpoints.add(openEndpoint(choice, this.#parts));
  }
}
