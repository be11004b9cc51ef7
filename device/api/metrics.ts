/**
 * `GET /metrics`: the counters of the device in the text format of OpenMetrics 1.0, which Prometheus scrapes.
 *
 * @module
 */
import type { ApiContext, RouteAnswer } from "./context.ts";
import { FAMILIES, type Labels, type MetricFamily } from "./metric_families.ts";
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

/** Labels in braces; nothing where there are none. */
function labelText(labels: Labels): string {
  const parts = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value)}"`);
  return parts.length === 0 ? "" : `{${parts.join(",")}}`;
}

/** A label's value with what the format escapes. */
function escaped(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
