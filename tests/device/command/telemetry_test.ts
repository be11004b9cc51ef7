import { assertEquals, assertStringIncludes } from "@std/assert";
import { deadline } from "@std/async";
import { attachRequest } from "../../../device/iommu/driver_requests.ts";
import { FAMILIES } from "../../../device/api/metric_families.ts";
import { HANG_MS } from "../../until.ts";
import { connect, send, withServe } from "../served_process.ts";

/** A metric of an export request (OpenTelemetry Protocol 1.x, in JSON). */
interface Metric {
  readonly name: string;
  readonly unit?: string;
  readonly gauge?: { readonly dataPoints: readonly DataPoint[] };
  readonly sum?: { readonly dataPoints: readonly DataPoint[]; readonly isMonotonic: boolean };
}

interface DataPoint {
  readonly asDouble?: number;
  readonly asInt?: string | number;
}

/** A collector that takes what is exported to it. */
class Collector implements AsyncDisposable {
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #metrics = new Map<string, Metric>();
  #onMetrics: () => void = () => {};

  constructor() {
    this.#server = Deno.serve(
      { port: 0, hostname: "127.0.0.1", onListen() {} },
      async (request) => {
        const body = await request.json();
        for (const { scopeMetrics } of body.resourceMetrics ?? []) {
          for (const { scope, metrics } of scopeMetrics) {
            if (scope.name !== "viommu") continue;
            for (const metric of metrics) this.#metrics.set(metric.name, metric);
            this.#onMetrics();
          }
        }
        return Response.json({});
      },
    );
  }

  /** What a `serve` that exports to it has in its environment. */
  get env(): Readonly<Record<string, string>> {
    return {
      OTEL_DENO: "true",
      OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${this.#server.addr.port}`,
      OTEL_METRIC_EXPORT_INTERVAL: "200",
    };
  }

  /** Waits until the metrics are as wanted. */
  async until(isWanted: (metrics: ReadonlyMap<string, Metric>) => boolean): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#onMetrics = () => {
      if (isWanted(this.#metrics)) resolve();
    };
    this.#onMetrics();
    await deadline(promise, HANG_MS);
  }

  /** What was exported last, by name. */
  get metrics(): ReadonlyMap<string, Metric> {
    return this.#metrics;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }
}

function valueOf(metric: Metric | undefined): number {
  const [point] = (metric?.gauge ?? metric?.sum)?.dataPoints ?? [];
  return Number(point?.asDouble ?? point?.asInt);
}

Deno.test("serve with OTEL_DENO=true exports its metrics, while a guest is served", async () => {
  await using collector = new Collector();
  const log = await withServe([], async ({ socket }) => {
    using session = await connect(socket);
    assertEquals(await send(session, attachRequest(3, 24)), "OK");
    await collector.until((metrics) =>
      valueOf(metrics.get("viommu_domains")) === 1 &&
      valueOf(metrics.get("viommu_requests")) === 1 && metrics.has("viommu_table_pages")
    );
  }, collector.env);
  assertStringIncludes(log, "Exporting metrics by OpenTelemetry");
  const known = new Set(FAMILIES.map(({ name }) => name));
  assertEquals([...collector.metrics.keys()].filter((name) => !known.has(name)), []);
  assertEquals(collector.metrics.get("viommu_requests")?.sum?.isMonotonic, true);
});
