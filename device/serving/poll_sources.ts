import type { PollSet } from "../host/mod.ts";
import type { PollSource } from "../poll_source.ts";

/** The poll sources of a loop, as one: they are served in turn. */
export class PollSources {
  readonly #all: readonly PollSource[];

  /** Serves these, in this order. */
  constructor(all: readonly PollSource[]) {
    this.#all = all;
  }

  /** Whether the rings of one of them must be looked at from time to time. */
  get mustPoll(): boolean {
    return this.#all.some((each) => each.mustPoll);
  }

  /** Adds their descriptors to a set. */
  addTo(poll: PollSet): void {
    for (const each of this.#all) each.addTo(poll);
  }

  /** Handles what is ready in the set that they were last added to. */
  look(poll: PollSet): void {
    for (const each of this.#all) each.look(poll);
  }

  /** Serves each for a small piece of work. Returns how many had any. */
  serve(): number {
    let busy = 0;
    for (let i = 0; i < this.#all.length; i++) if (this.#all[i].serve()) busy++;
    return busy;
  }

  /**
   * Switches the notifications of their rings on or off.
   *
   * @returns When switching on: whether one has work already, so that it is too early to sleep.
   */
  setNotifications(on: boolean): boolean {
    let work = false;
    for (const each of this.#all) if (each.setNotifications(on)) work = true;
    return work;
  }
}
