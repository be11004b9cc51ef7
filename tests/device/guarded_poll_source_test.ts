import { assert, assertEquals } from "@std/assert";
import type { PollSource } from "../../device/poll_source.ts";
import { GuardedPollSource } from "../../device/guarded_poll_source.ts";
import { OsError, PollSet, UnixListener } from "../../device/host/mod.ts";
import { IommuDevice } from "../../device/iommu/iommu_device.ts";
import { Log } from "../../device/log.ts";
import { DeviceServer } from "../../device/serving/device_server.ts";
import { until } from "../until.ts";
import { stateOf } from "./api/api_world.ts";
import { temporaryPath } from "./host/host_state.ts";
import { DEFAULT_OPTIONS } from "./in_process_guest.ts";

/** A poll source that fails when it is looked at. */
class FailingLook implements PollSource {
  readonly name = "rng 00:03.0";
  readonly mustPoll = true;
  onDue: () => void = () => {};

  addTo(): void {}

  look(): void {
    throw new Error("a fault of ours");
  }

  serve(): boolean {
    return false;
  }

  setNotifications(): boolean {
    return false;
  }

  endSession(): void {}

  close(): void {}
}

Deno.test("what fails in a served poll source is counted under its name, and shown with the state", async () => {
  const device = new IommuDevice(DEFAULT_OPTIONS);
  const server = new DeviceServer(device, new Log("error", () => {}), 0, [new FailingLook()]);
  const context = {
    device,
    version: "0",
    connected: false,
    get failures() {
      return server.failures;
    },
  };
  assertEquals(stateOf(context).failures, undefined);
  const done = server.run(UnixListener.listen(temporaryPath()));
  try {
    await until(() => (stateOf(context).failures?.["rng 00:03.0"] ?? 0) >= 2, "it fails twice");
    assertEquals(Object.keys(server.failures), ["rng 00:03.0"]);
  } finally {
    server.stop();
    await done;
    device.close();
  }
});

/** A poll source whose every method fails. */
class Failing implements PollSource {
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
  Deno.test(`what a pollSource fails with (${error.name}) ends its session and nothing else`, () => {
    const lines: string[] = [];
    const inner = new Failing(error);
    const guarded = new GuardedPollSource(inner, new Log("info", (line) => lines.push(line)));
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
