/** The order in which frames leave (I7): unmapped everywhere, flushed, and only then unpinned or released. */
import { assert, assertEquals } from "@std/assert";
import type { EventLog } from "./fault_plan.ts";

/** Replays an event log and checks that nothing could reach a frame that was not pinned any more. */
export class EventOrder {
  readonly #log: EventLog;
  /** How often each frame is mapped and pinned. */
  readonly #mapped = new Map<number, number>();
  readonly #pinned = new Map<number, number>();
  /** Frames unmapped and not flushed yet, by page table. */
  readonly #cached = new Map<string, Set<number>>();

  /** Starts at the beginning of a log. */
  constructor(log: EventLog) {
    this.#log = log;
  }

  /** Checks what the log has got since the last check, and clears it. */
  check(): void {
    for (const { kind, by, first, count, frame } of this.#log.events) {
      if (kind === "map") {
        for (let at = 0; at < count; at++) bump(this.#mapped, frame! + at, 1);
      } else if (kind === "unmap") {
        bump(this.#mapped, frame!, -1);
        if (!this.#cached.has(by)) this.#cached.set(by, new Set());
        this.#cached.get(by)!.add(frame!);
      } else if (kind === "flush") this.#cached.delete(by);
      else if (kind === "pin") bump(this.#pinned, first, 1);
      else if (kind === "unpin") {
        bump(this.#pinned, first, -1);
        if (!this.#pinned.has(first)) this.#checkGone(first, "unpinned");
      } else if (kind === "release") {
        for (let at = 0; at < count; at++) this.#checkGone(first + at, "released");
      } else if (kind === "uncharge" && count > 0) {
        assertEquals(this.#cached.size, 0, "I7: pages let go before the flush");
      }
    }
    this.#log.clear();
  }

  #checkGone(frame: number, how: string): void {
    assert(!this.#mapped.has(frame), `I7: frame ${frame} ${how} while mapped`);
    const isCached = [...this.#cached.values()].some((frames) => frames.has(frame));
    assert(!isCached, `I7: frame ${frame} ${how} while cached`);
  }
}

function bump(counts: Map<number, number>, key: number, by: number): void {
  const count = (counts.get(key) ?? 0) + by;
  if (count === 0) counts.delete(key);
  else counts.set(key, count);
}
