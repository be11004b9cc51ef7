/**
 * Measures everything and writes `docs/benchmarks.md` with its charts.
 *
 * Usage: deno task bench:report [--rounds N] [--without-guest]
 *
 * The targets and the guest comparison run in this process, the suites of `deno bench` in another. It takes some
 * ten minutes; each part says when it begins.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { type Bar, barChart } from "./bar_chart.ts";
import { type GuestBench, guestBench } from "./guest.ts";
import { measureTargets, type TargetRow } from "./targets.ts";

const ROOT = new URL("../", import.meta.url);

/** The part of `deno bench --json` that is used; times in nanoseconds. */
interface Suites {
  readonly benches: readonly {
    readonly origin: string;
    readonly group: string | null;
    readonly name: string;
    readonly baseline: boolean;
    readonly results: readonly {
      readonly ok?: { readonly min: number; readonly avg: number; readonly p99: number };
    }[];
  }[];
}

/** Runs every suite. */
async function runSuites(): Promise<Suites> {
  const { stdout, code } = await new Deno.Command(Deno.execPath(), {
    args: ["bench", "--frozen", "--allow-all", "--json", "bench"],
    cwd: ROOT,
    stderr: "inherit",
  }).output();
  if (code !== 0) throw new Error(`Cannot run the suites: deno bench ended with ${code}`);
  return JSON.parse(new TextDecoder().decode(stdout));
}

/** What was measured on. */
async function machine(): Promise<string> {
  const cpu = /^model name\s*:\s*(.+)$/m.exec(await Deno.readTextFile("/proc/cpuinfo"))?.[1];
  const memory = Math.round(Deno.systemMemoryInfo().total / 2 ** 30);
  return `${cpu ?? Deno.build.arch}, ${navigator.hardwareConcurrency} processors, ${memory} GiB, ` +
    `Deno ${Deno.version.deno} (V8 ${Deno.version.v8})`;
}

/** The section about a guest. */
function guestSection(guest: GuestBench): string {
  const row = (name: string, cost: { map: number; unmap: number }, digits: number, unit: string) =>
    `| ${name} | ${cost.map.toFixed(digits)}${unit} | ${cost.unmap.toFixed(digits)}${unit} |`;
  return `## What a guest waits

A Linux guest (TCG, one processor) maps and unmaps pages of 4 KiB one by one through VFIO; the time of one call, in the guest. ${guest.rounds.length} rounds of ${guest.count} calls, two guests up at once, one behind each device, in turn. The ratio is the median of the rounds' ratios: below 1 we are faster.

![map and unmap of 4 KiB](benchmarks-guest.svg)

| | map | unmap |
|---|---|---|
${row("QEMU's virtio-iommu", guest.builtIn, 1, " µs")}
${row("viommu", guest.ours, 1, " µs")}
${row("ratio", guest.ratio, 2, "")}

Rounds (QEMU map / unmap, ours map / unmap, µs): ${
    guest.rounds.map(({ builtIn, ours }) =>
      [builtIn.map, builtIn.unmap, ours.map, ours.unmap].map((us) => us.toFixed(1)).join(" / ")
    ).join("; ")
  }.
`;
}

/** The section about the targets. */
function targetSection(rows: readonly TargetRow[]): string {
  const lines = rows.map(({ what, target, seen, isMet }) =>
    `| ${what} | ${target} | ${seen} | ${isMet ? "met" : "**missed**"} |`
  );
  return `## Targets

| what | target | seen | |
|---|---|---|---|
${lines.join("\n")}
`;
}

/** The section about the suites: least and average of each case. */
function suiteSection({ benches }: Suites): string {
  const files = Map.groupBy(benches, ({ origin }) => origin.slice(origin.indexOf("/bench/") + 1));
  const parts = [...files].map(([file, cases]) => {
    const lines = cases.map(({ group, name, results }) => {
      const ok = results[0]?.ok;
      const times = ok === undefined
        ? "failed | | "
        : `${timeText(ok.min)} | ${timeText(ok.avg)} | ${timeText(ok.p99)}`;
      return `| ${group ?? ""} | ${name} | ${times} |`;
    });
    return `### ${file}

| group | case | least | average | p99 |
|---|---|---|---|---|
${lines.join("\n")}
`;
  });
  return `## Suites

Each group has a calibration case: compare with it, not with another machine.

${parts.join("\n")}`;
}

/** Nanoseconds as text. */
function timeText(ns: number): string {
  if (ns < 1e3) return `${ns.toFixed(1)} ns`;
  return ns < 1e6 ? `${(ns / 1e3).toFixed(2)} µs` : `${(ns / 1e6).toFixed(2)} ms`;
}

/** The bars of the guest comparison. */
function guestBars(guest: GuestBench): readonly Bar[] {
  return (["map", "unmap"] as const).flatMap((what) =>
    ([["QEMU's virtio-iommu", guest.builtIn, false], ["viommu", guest.ours, true]] as const).map(
      ([name, cost, isOurs]) => ({
        label: `${what}, ${name}`,
        value: cost[what],
        text: `${cost[what].toFixed(1)} µs`,
        isOurs,
      }),
    )
  );
}

const { values } = parseArgs({
  options: {
    "rounds": { type: "string", default: "9" },
    "without-guest": { type: "boolean", default: false },
  },
});
const sections = [
  "# Benchmarks",
  `Measured by \`deno task bench:report\` on ${await machine()}, a shared virtual machine: ratios within ` +
  "one run mean something, times less.",
];
if (!values["without-guest"]) {
  console.error("the guest comparison");
  const guest = await guestBench(Number(values.rounds), 2000, console.error);
  await Deno.writeTextFile(
    new URL("docs/benchmarks-guest.svg", ROOT),
    barChart("a 4 KiB VFIO map and unmap, as the guest sees it", guestBars(guest)),
  );
  sections.push(guestSection(guest));
}
console.error("the targets");
sections.push(targetSection(measureTargets(({ what, seen }) => console.error(`${what}: ${seen}`))));
console.error("the suites");
sections.push(suiteSection(await runSuites()));
await Deno.writeTextFile(new URL("docs/benchmarks.md", ROOT), sections.join("\n\n"));
console.error("wrote docs/benchmarks.md");
