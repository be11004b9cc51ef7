/** `GET /metrics`: the counters of the device in the text format of OpenMetrics 1.0, which Prometheus scrapes. */
import type { ApiContext, RouteAnswer } from "./context.ts";
import { FAMILIES, type Labels, type MetricFamily } from "./metric_families.ts";
import { BUCKET_SECONDS, type ServiceTimes } from "../service_times.ts";
import type { Work } from "./work.ts";

/** Media type of the format. */
const OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/** `GET /metrics`, a family a piece. */
export function metrics(context: ApiContext, work: Work): RouteAnswer {
  return Object.assign(families(context, work), { mediaType: OPEN_METRICS });
}

function* families(context: ApiContext, work: Work): Generator<string, void> {
  yield `# TYPE viommu info\n# HELP viommu The program.\nviommu_info${
    labelText({ version: context.version })
  } 1\n`;
  for (const family of FAMILIES) yield familyText(family, context, work);
  if (context.times !== undefined) yield serviceTimesText(context.times);
  yield "# EOF\n";
}

/** A family as text; nothing where it has no values. */
function familyText(
  { name, type, unit, help, samples }: MetricFamily,
  context: ApiContext,
  work: Work,
): string {
  const suffix = type === "counter" ? "_total" : "";
  let text = "";
  for (const [labels, value] of samples(context, work)) {
    text += `${name}${suffix}${labelText(labels)} ${value}\n`;
    work.add(1);
  }
  if (text === "") return "";
  const unitLine = unit === undefined ? "" : `# UNIT ${name} ${unit}\n`;
  return `# TYPE ${name} ${type}\n${unitLine}# HELP ${name} ${help}\n${text}`;
}

/** Service times as a histogram, whose buckets include those below them. */
function serviceTimesText({ counts, total }: ServiceTimes): string {
  const name = "viommu_service_seconds";
  let count = 0;
  let text = `# TYPE ${name} histogram\n# UNIT ${name} seconds\n` +
    `# HELP ${name} Time to serve the requests that were in the ring at once.\n`;
  counts.forEach((each, i) => {
    count += each;
    text += `${name}_bucket${labelText({ le: String(BUCKET_SECONDS[i] ?? "+Inf") })} ${count}\n`;
  });
  return `${text}${name}_count ${count}\n${name}_sum ${total}\n`;
}

/** Labels in braces; nothing where there are none. */
function labelText(labels: Labels): string {
  const parts = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value)}"`);
  return parts.length === 0 ? "" : `{${parts.join(",")}}`;
}

/** A label's value with what the format escapes. */
function escaped(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
