/** Makes the n-th thing that can fail do so, and keeps an ordered log of what happened. */
import { assert, assertEquals } from "@std/assert";
import { type Errno, OK } from "../../iommufd/errno.ts";
import type { Growth } from "../../iommufd/growth.ts";

/** Fails the chosen hits, counted from 1. */
export class FaultPlan implements Growth {
  /** Hits so far. */
  hits = 0;
  /** Which hits fail. */
  readonly #failing = new Set<number>();
  /** Whether a chosen hit came. */
  hasFired = false;
  /** Which of them were reached, by name. */
  readonly fired: string[] = [];

  /** Starts counting anew; the given hits will fail. */
  arm(...failing: number[]): void {
    this.hits = 0;
    this.hasFired = false;
    this.fired.length = 0;
    this.#failing.clear();
    for (const hit of failing) if (hit > 0) this.#failing.add(hit);
  }

  /** Whether what is named shall fail. */
  fails(name: string): boolean {
    this.hits++;
    if (!this.#failing.has(this.hits)) return false;
    this.hasFired = true;
    this.fired.push(name);
    return true;
  }

  /** OK and expected OK; or both refused; or a fault of the plan refused. Returns whether it was done. */
  agrees(what: string, errno: Errno, expected: Errno): boolean {
    if (this.hasFired) {
      assert(errno !== OK, `${what}: done in spite of a failed ${this.fired}`);
      return false;
    }
    assertEquals(errno, expected, what);
    return errno === OK;
  }

  /** Does what needs nothing that can fail (I9). */
  without(act: () => Errno): Errno {
    const { hits } = this;
    const errno = act();
    assertEquals(this.hits, hits, "I9: something that can fail was used");
    return errno;
  }

  /** As little as possible, so that nearly every insert is an allocation. */
  next(capacity: number): number {
    return capacity + 1;
  }

  allow(_bytes: number): boolean {
    return !this.fails("allocation");
  }
}

/** One thing that happened. */
export interface Event {
  /** What: a table's `map`, `unmap` or `flush`, a source's `pin` or `unpin`, a budget's `charge` or `uncharge`, the
   * `release` of a region. */
  readonly kind: "map" | "unmap" | "flush" | "pin" | "unpin" | "charge" | "uncharge" | "release";
  /** Which table, source or budget. */
  readonly by: string;
  /** First page or frame. */
  readonly first: number;
  /** How many. */
  readonly count: number;
  /** First frame of a map. */
  readonly frame?: number;
}

/** Everything that happened, in order. */
export class EventLog {
  /** The events. */
  readonly events: Event[] = [];

  /** Adds one. */
  add(event: Event): void {
    this.events.push(event);
  }

  /** The events of one kind. */
  of(kind: Event["kind"], by?: string): Event[] {
    return this.events.filter((event) =>
      event.kind === kind && (by === undefined || event.by === by)
    );
  }

  /** Forgets everything. */
  clear(): void {
    this.events.length = 0;
  }
}
