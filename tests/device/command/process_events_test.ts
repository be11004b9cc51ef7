import { assert, assertEquals } from "@std/assert";
import { RejectionLog, StopSignals } from "../../../device/command/process_events.ts";
import { Log } from "../../../device/log.ts";
import { until } from "../../until.ts";

Deno.test("a rejection that nothing waits for is logged and does not end the process", async () => {
  const lines: string[] = [];
  using _log = new RejectionLog(new Log("info", (line) => lines.push(line)));
  Promise.reject(new Error("fdatasync failed"));
  await until(() => lines.length > 0, "it is logged");
  const beginning =
    "viommu: error: Something failed that nothing waits for: Error: fdatasync failed";
  assert(lines[0].startsWith(beginning) && !lines[0].includes("\n"), lines[0]);
});

Deno.test("a signal that comes before there is anything to stop counts when there is", async () => {
  using stop = new StopSignals();
  assertEquals(stop.isAsked, false);
  Deno.kill(Deno.pid, "SIGTERM");
  await until(() => stop.isAsked, "the signal arrives");
  let calls = 0;
  stop.onStop(() => calls++);
  assertEquals(calls, 1);
});
