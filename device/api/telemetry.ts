/**
 * The metrics of the device for OpenTelemetry, through the runtime's own exporter (`OTEL_DENO=true`).
 *
 * The runtime has what `npm:@opentelemetry/api` would be given, so the package is not needed. Values are read when the
 * runtime exports them (`OTEL_METRIC_EXPORT_INTERVAL`), in the event loop, as a scrape of `/metrics` would.
 */
import type { ApiContext } from "./context.ts";
import { FAMILIES, type Labels } from "./metric_families.ts";
import { Work } from "./work.ts";

/** What an instrument is asked with. */
interface Observation {
  observe(value: number, labels: Labels): void;
}

/** An observable instrument of OpenTelemetry, as far as it is used here. */
interface Instrument {
  addCallback(callback: (result: Observation) => void): void;
}

/** A meter of OpenTelemetry, as far as it is used here. */
interface Meter {
  createObservableCounter(name: string, options: InstrumentOptions): Instrument;
  createObservableGauge(name: string, options: InstrumentOptions): Instrument;
}

interface InstrumentOptions {
  readonly description: string;
  readonly unit?: string;
}

/** Units as the Unified Code for Units of Measure writes them. */
const UNITS = { seconds: "s", bytes: "By" } as const;

/**
 * Exports every metric family from now on, until the process ends, if the runtime exports anything.
 *
 * @returns Whether it does.
 */
export function exportMetrics(context: ApiContext): boolean {
  const meter = runtimeMeter(context.version);
  if (meter === undefined) return false;
  const work = new Work();
  for (const { name, type, unit, help, samples } of FAMILIES) {
    const options = { description: help, ...(unit === undefined ? {} : { unit: UNITS[unit] }) };
    const instrument = type === "counter"
      ? meter.createObservableCounter(name, options)
      : meter.createObservableGauge(name, options);
    instrument.addCallback((result) => {
      for (const [labels, value] of samples(context, work)) result.observe(value, labels);
    });
  }
  return true;
}

/** A meter of the runtime; undefined where it was started without `OTEL_DENO`, of which it says nothing but by failing. */
function runtimeMeter(version: string): Meter | undefined {
  try {
    return Deno.telemetry.meterProvider.getMeter("viommu", version);
  } catch {
    return undefined;
  }
}
