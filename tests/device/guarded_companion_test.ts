import { assert, assertEquals } from "@std/assert";
import type { Companion } from "../../device/companion.ts";
import { GuardedCompanion } from "../../device/guarded_companion.ts";
import { OsError, PollSet } from "../../device/host/mod.ts";
import { Log } from "../../device/log.ts";

/** A companion whose every method fails. */
class Failing implements Companion {
  readonly name = "rng 00:03.0";
  readonly mustPoll = false;
  onDue: () => void = () => {};
  ended = 0;
  readonly #error: unknown;

  constructor(error: unknown) {
    this.#error = error;
  }

  addTo(): void {}

  look(): void {
    throw this.#error;
  }

  serve(): boolean {
    throw this.#error;
  }

  setNotifications(): boolean {
    throw this.#error;
  }

  endSession(): void {
    this.ended++;
    if (this.ended === 3) throw this.#error;
  }

  close(): void {
    throw this.#error;
  }
}

for (
  const [error, expected] of [
    [
      new OsError("Cannot send on descriptor 31", "sendmsg", 1),
      "viommu: warn: The session is ended of rng 00:03.0: Cannot send on descriptor 31: sendmsg failed: EPERM",
    ],
    [
      new TypeError("a fault of ours"),
      "viommu: error: The session is ended of rng 00:03.0: TypeError",
    ],
  ] as const
) {
  Deno.test(`what a companion fails with (${error.name}) ends its session and nothing else`, () => {
    const lines: string[] = [];
    const inner = new Failing(error);
    const guarded = new GuardedCompanion(inner, new Log("info", (line) => lines.push(line)));
    using poll = new PollSet();
    guarded.look(poll);
    assertEquals(guarded.serve(), false);
    assertEquals(guarded.setNotifications(true), false);
    guarded.close();
    assertEquals([inner.ended, guarded.failures], [3, 3]);
    assert(lines[0].startsWith(expected), lines[0]);
    for (let i = 0; i < 1000; i++) guarded.look(poll);
    assert(lines.length < 40, `${lines.length} lines`);
  });
}
