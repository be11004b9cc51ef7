import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { attachRequest, mapRequest } from "../../../device/iommu/driver_requests.ts";
import { FAMILIES } from "../../../device/api/metric_families.ts";
import { metrics } from "../../../device/api/metrics.ts";
import { Work } from "../../../device/api/work.ts";
import { BUCKET_SECONDS, ServiceTimes } from "../../../device/service_times.ts";
import { InProcessGuest } from "../in_process_guest.ts";
import { ApiWorld, textOf } from "./api_world.ts";

/** A sample line of the text format (OpenMetrics 1.0, "ABNF"), without timestamps and exemplars. */
const SAMPLE =
  /^[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-zA-Z_]\w*="([^"\\\n]|\\[\\"n])*"(,[a-zA-Z_]\w*="([^"\\\n]|\\[\\"n])*")*\})? -?[0-9.e+-]+$/;

/** The metrics of a guest with a domain, two mappings and a refused request. */
function metricsText(): string {
  const guest = new InProcessGuest();
  guest.request(attachRequest(2, 8), 4);
  const page = { domain: 2, virtStart: 0x5000n, virtEnd: 0x6fffn, physStart: 0x9000n, flags: 1 };
  guest.request(mapRequest(page), 4);
  guest.request(mapRequest(page), 4);
  const failures = { 'proxy "a\\b"': 3 };
  const context = { device: guest.device, version: "1.2.3", connected: true, failures };
  const work = new Work();
  const answer = metrics(context, work);
  const text = textOf({ [Symbol.iterator]: () => answer as Iterator<string, undefined> }, work);
  guest.close();
  return text;
}

Deno.test("metrics are in the format of OpenMetrics: families in one piece, sorted out by their names, EOF at the end", () => {
  const text = metricsText();
  assert(text.endsWith("\n# EOF\n"));
  let family = "";
  let type = "";
  const seen = new Set<string>();
  for (const line of text.split("\n").slice(0, -2)) {
    const head = /^# (TYPE|UNIT|HELP) (\S+) (.+)$/.exec(line);
    if (head !== null) {
      if (head[1] === "TYPE") {
        assert(!seen.has(head[2]), `${head[2]} is told twice`);
        seen.add(head[2]);
        [family, type] = [head[2], head[3]];
      }
      assertEquals(head[2], family);
      if (head[1] === "UNIT") assert(family.endsWith(`_${head[3]}`), line);
    } else {
      assertMatch(line, SAMPLE);
      const suffix = { counter: "_total", info: "_info", gauge: "" }[type]!;
      assertEquals(line.split(/[{ ]/)[0], family + suffix);
    }
  }
  assertStringIncludes(text, 'viommu_info{version="1.2.3"} 1\n');
  assertStringIncludes(text, "\nviommu_domains 1\n");
  assertStringIncludes(text, "\nviommu_mapped_pages 2\n");
  assertStringIncludes(text, '\nviommu_requests_total{type="MAP",status="INVAL"} 1\n');
  assertStringIncludes(text, '\nviommu_failed_sessions_total{served="proxy \\"a\\\\b\\""} 3\n');
});

Deno.test("service times are a histogram whose buckets include those below them", () => {
  const times = new ServiceTimes();
  for (const milliseconds of [0.0005, 0.015, 0.015, 3, 5000]) times.add(milliseconds);
  using guest = new InProcessGuest();
  const context = { device: guest.device, version: "0", connected: true, times };
  const work = new Work();
  const answer = metrics(context, work);
  const text = textOf({ [Symbol.iterator]: () => answer as Iterator<string, undefined> }, work);
  const lines = text.split("\n").filter((line) => line.startsWith("viommu_service_seconds"));
  assertEquals(lines.slice(0, 5).map((line) => line.split(" ")[1]), ["1", "1", "1", "1", "3"]);
  assertEquals(lines.slice(-4), [
    'viommu_service_seconds_bucket{le="0.1"} 4',
    'viommu_service_seconds_bucket{le="+Inf"} 5',
    "viommu_service_seconds_count 5",
    `viommu_service_seconds_sum ${times.total}`,
  ]);
  assertEquals([times.longest, lines.length], [5, BUCKET_SECONDS.length + 3]);
});

Deno.test("the name of a metric family ends with its unit, and no counter's with _total", () => {
  for (const { name, unit, help } of FAMILIES) {
    assertMatch(name, /^viommu_[a-z_]+$/);
    assert(!name.endsWith("_total"), name);
    if (unit !== undefined) assert(name.endsWith(`_${unit}`), name);
    assert(help.endsWith(".") && !help.includes("\n"), name);
  }
});

Deno.test("GET /metrics is answered with the media type of OpenMetrics", async () => {
  using world = new ApiWorld();
  const answer = await world.ask("GET /metrics HTTP/1.1\r\n\r\n");
  assertEquals(answer.status, 200);
  assertStringIncludes(
    answer.head,
    "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n",
  );
});
