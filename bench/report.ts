/**
 * Measures everything and writes `docs/benchmarks.md` with its charts.
 *
 * Usage: deno task bench:report [--rounds N] [--boots N] [--passes N] [--only guest|passthrough|targets|suites]
 *
 * The targets and the guest comparison run in this process, the suites of `deno bench` in another. All of it takes some ten
 * minutes; each part prints when it begins.
 *
 * @module
 */
import { delay } from "@std/async";
import { parseArgs } from "node:util";
import { type Bar, barChart } from "./bar_chart.ts";
import { passthroughSection } from "./passthrough.ts";
import { DEFAULTS, type GuestBench, guestBench } from "./guest.ts";
import { measureTargets, type TargetRow } from "./targets.ts";

const ROOT = new URL("../", import.meta.url);
const REPORT = new URL("docs/benchmarks.md", ROOT);
const CHART = new URL("docs/benchmarks-guest.svg", ROOT);
/** Milliseconds between two passes over the targets. */
const PAUSE_MS = 5000;

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

/** The line of a section that says where it was measured: with `--only`, the others may be of another machine. */
async function measuredOn(): Promise<string> {
  const cpu = /^model name\s*:\s*(.+)$/m.exec(await Deno.readTextFile("/proc/cpuinfo"))?.[1];
  const memory = Math.round(Deno.systemMemoryInfo().total / 2 ** 30);
  return `Measured on ${cpu ?? Deno.build.arch}, ${navigator.hardwareConcurrency} processors, ` +
    `${memory} GiB, Deno ${Deno.version.deno} (V8 ${Deno.version.v8}).`;
}

/** The section about a guest. */
function guestSection(guest: GuestBench, machine: string): string {
  const row = (name: string, cost: { map: number; unmap: number }, digits: number, unit: string) =>
    `| ${name} | ${cost.map.toFixed(digits)}${unit} | ${cost.unmap.toFixed(digits)}${unit} |`;
  return `## What a guest waits

${machine}

A Linux guest (TCG, one processor) maps and unmaps 4 KiB pages one by one through VFIO; the times are those of one call, measured in the guest. Two guests, one behind each device, take turns while the other is stopped: ${guest.rounds.length} rounds of ${guest.count} calls, over ${guest.boots} pairs of guests, booted one pair after the other. From boot to boot a guest's speed differs by some 5 %, depending on where its pages and the emulator's code are placed. The ratio is the median of the rounds' ratios; below 1, viommu is faster.

![map and unmap of 4 KiB](benchmarks-guest.svg)

| | map | unmap |
|---|---|---|
${row("QEMU's virtio-iommu", guest.builtIn, 1, " µs")}
${row("viommu", guest.ours, 1, " µs")}
${row("ratio (target: at most 0.95)", guest.ratio, 2, "")}

Quartiles of the rounds' ratios: map ${spread(guest, "map")}, unmap ${
    spread(guest, "unmap")
  }. On a shared machine a round can run at half speed, of either device.

QEMU answers in the guest's thread, which costs an exit. viommu polls the ring on a second processor and answers without an exit, while the guest is still on its way from writing the request to reading the answer. The rest of a call is the guest's own work.

The result depends on how far apart the two processors are, because a request and its answer pass between them: see the round trips below. [benchmarks-elsewhere.md](benchmarks-elsewhere.md) has results of other machines.
`;
}

/** The first and the third quartile of the rounds' ratios. */
function spread({ rounds }: GuestBench, what: "map" | "unmap"): string {
  const ratios = rounds.map(({ ours, builtIn }) => ours[what] / builtIn[what]).sort((a, b) =>
    a - b
  );
  const [low, high] = [0.25, 0.75].map((part) => ratios[Math.floor(part * (ratios.length - 1))]);
  return `${low.toFixed(2)} to ${high.toFixed(2)}`;
}

/** The best of several passes for each target: other load of the machine can only slow it down. */
async function bestOfPasses(passes: number): Promise<readonly TargetRow[]> {
  const best: TargetRow[] = [];
  for (let pass = 0; pass < passes; pass++) {
    if (pass > 0) await delay(PAUSE_MS);
    const rows = measureTargets(({ what, seen }) => console.error(`${what}: ${seen}`));
    rows.forEach((row, i) => {
      if (best[i] === undefined || row.score < best[i].score) best[i] = row;
    });
  }
  return best;
}

/** The section about the targets. */
function targetSection(rows: readonly TargetRow[], passes: number, machine: string): string {
  const lines = rows.map(({ what, target, seen, isMet }) =>
    `| ${what} | ${target} | ${seen} | ${isMet ? "met" : "**missed**"} |`
  );
  return `## Targets

${machine}

The best of ${passes} passes.

| what | target | seen | |
|---|---|---|---|
${lines.join("\n")}

${rows.flatMap(({ isMet, inTheWay }) => isMet ? [] : [`Missed: ${inTheWay}\n`]).join("\n")}`;
}

/** The section about the suites: least and average of each case. */
function suiteSection({ benches }: Suites, machine: string): string {
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

${machine}

Each group has a calibration case; compare with it, not with another machine.

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

/** The sections of the present report, by the first word of their headings. */
async function sectionsThereAre(): Promise<Map<string, string>> {
  const text = await Deno.readTextFile(REPORT).catch(() => "");
  const parts = text.split(/^(?=## )/m).slice(1);
  return new Map(parts.map((part) => [part.slice(3).split(/\s/)[0], part.trimEnd()]));
}

const { values } = parseArgs({
  options: {
    "rounds": { type: "string", default: "60" },
    "boots": { type: "string", default: "10" },
    "passes": { type: "string", default: "3" },
    "only": { type: "string" },
  },
});
const sections = await sectionsThereAre();
const machine = await measuredOn();
const { only } = values;
if (only === undefined || only === "guest") {
  console.error("the guest comparison");
  const guest = await guestBench({
    count: DEFAULTS.count,
    rounds: Number(values.rounds),
    boots: Number(values.boots),
  }, console.error);
  await Deno.writeTextFile(
    CHART,
    barChart("a 4 KiB VFIO map and unmap, as the guest sees it", guestBars(guest)),
  );
  sections.set("What", guestSection(guest, machine).trimEnd());
}
if (only === undefined || only === "passthrough") {
  console.error("passed-through devices");
  sections.set("Passed-through", (await passthroughSection(machine, console.error)).trimEnd());
}
if (only === undefined || only === "targets") {
  console.error("the targets");
  const passes = Number(values.passes);
  const best = await bestOfPasses(passes);
  sections.set("Targets", targetSection(best, passes, machine).trimEnd());
}
if (only === undefined || only === "suites") {
  console.error("the suites");
  sections.set("Suites", suiteSection(await runSuites(), machine).trimEnd());
}
const head = `# Benchmarks

\`deno task bench:report\` writes this page. Compare ratios within one run; times depend on the machine and on what else runs on it.`;
const names = ["What", "Passed-through", "Targets", "Suites"];
const order = names.flatMap((name) => sections.get(name) ?? []);
await Deno.writeTextFile(REPORT, [head, ...order].join("\n\n") + "\n");
await new Deno.Command(Deno.execPath(), {
  args: ["fmt", "--quiet", REPORT.pathname, CHART.pathname],
}).output();
console.error("wrote docs/benchmarks.md");
