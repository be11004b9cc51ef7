import { assertEquals } from "@std/assert";
import { Log } from "../../device/log.ts";

Deno.test("Log writes its level and what is more important", () => {
  const lines: string[] = [];
  const log = new Log("warn", (line) => lines.push(line));
  log.error("a");
  log.warn("b");
  log.info("c");
  log.debug("d");
  assertEquals(lines, ["viommu: error: a", "viommu: warn: b"]);
});

Deno.test("Log.warnLimited() writes a burst, then one line a second with the number left out", () => {
  const lines: string[] = [];
  let now = 0;
  const log = new Log("info", (line) => lines.push(line), () => now);
  for (let i = 0; i < 1000; i++) log.warnLimited("kind", "bad request");
  assertEquals(lines.length, 10);
  now += 1000;
  log.warnLimited("kind", "bad request");
  assertEquals(lines.at(-1), "viommu: warn: bad request (and 990 more like it)");
  log.warnLimited("other", "something else");
  assertEquals(lines.length, 12);
});

Deno.test("every level that a peer can provoke has a limit of its own", () => {
  const lines: string[] = [];
  const log = new Log("info", (line) => lines.push(line), () => 0);
  for (let i = 0; i < 100; i++) log.infoLimited("connected", "A front end connected");
  for (let i = 0; i < 100; i++) log.errorLimited("failed", "A session failed");
  assertEquals(lines.filter((line) => line.startsWith("viommu: info: ")).length, 10);
  assertEquals(lines.filter((line) => line.startsWith("viommu: error: ")).length, 10);
});

Deno.test("Log goes on when its lines cannot be written", () => {
  let tries = 0;
  const log = new Log("info", () => {
    tries++;
    throw new Error("No space left on device");
  });
  log.error("a");
  log.warnLimited("kind", "b");
  log.info("c");
  assertEquals(tries, 3);
});

Deno.test("a line stays one line, whatever text of a peer's is in it", () => {
  const lines: string[] = [];
  const log = new Log("info", (line) => lines.push(line));
  log.info("Listening on a\nviommu: info: b\u2028c");
  assertEquals(lines, ["viommu: info: Listening on a\\u{a}viommu: info: b\\u{2028}c"]);
});
