/** `replay`: does to a device what a recording says, and compares each answer. */
import {
  type DumpEndpoint,
  dumpEndpoint,
  dumpText,
  formatNames,
  NO_PASID,
} from "../../pagetable/mod.ts";
import { endpointText, parseNumber, parseSize } from "../address.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import { secondsText } from "../recording/difference.ts";
import { RecordingReader } from "../recording/recording_reader.ts";
import { Replay, type ReplayOptions } from "../recording/replay.ts";
import { measureReplay } from "../recording/replay_bench.ts";
import { readInput } from "./bounded_input.ts";
import type { Command } from "./command.ts";
import { CommandError } from "./errors.ts";
import { attempt } from "./host_error.ts";
import { oneOf } from "./option_parts.ts";
import { type OptionValues, parsedOption } from "./options.ts";
import { printJson, printPieces } from "./output.ts";
import type { Streams } from "./streams.ts";

/** Bytes of a recording that is measured at most: it is kept in memory. */
const BENCH_MAX = 2 ** 30;
/** Milliseconds for which a recording is measured at least. */
const BENCH_MS = 1000;
/** Table memory that a recording may ask for, unless an option says otherwise. */
const MOST_TABLE_MEMORY = 2 ** 30;
/** Records between two turns of the event loop, so that Ctrl-C ends it. */
const RECORDS_PER_TURN = 100_000;

/** How far to replay: up to the end of a request, or a time in microseconds. */
interface Until {
  readonly requests: number;
  readonly time: number;
}

/** Replays a recording. */
export const replay: Command = {
  name: "replay",
  summary: "replay a recording of serve --record, in any table format",
  usage: ["FILE [options]"],
  description: `
Makes the device that a recording of "viommu serve --record FILE" describes,
does to it what was done, and compares each answer with the recorded one. A file
that was cut is replayed up to its last whole record.`,
  operand: "FILE",
  options: [{
    title: "Options",
    options: [
      {
        name: "format",
        value: formatNames().join("|"),
        help: "the tables of all endpoints (default: those of the recording)",
      },
      {
        name: "until",
        value: "N|TIME",
        help: "stops after request N, or after a time such as 2s, 150ms or 70us",
      },
      { name: "tree", help: 'prints the tables at that point, as "viommu dump" does' },
      { name: "json", help: "the outcome as JSON, with --tree the tables, too" },
      { name: "bench", help: "measures how long the device takes for the requests" },
      {
        name: "max-table-memory",
        value: "SIZE",
        help: "table memory that a recording may ask for (default 1G)",
      },
    ],
  }],
  ending: `
Exit code 1 if an answer is not the recorded one, or the file is no recording.

Example:
  viommu replay boot.rec --format smmuv3-s1 --until 1000 --tree
`,
  async run({ operand: path, values }, streams) {
    const options = replayOptions(values);
    const until = parsedOption(
      values,
      "until",
      parseUntil,
      "the number of a request such as 100, or a time such as 2s, 150ms or 70us",
    ) ?? { requests: Infinity, time: Infinity };
    if (values["bench"] === true) return await bench(path, options, streams);
    using file = await attempt(`read ${path}`, () => Deno.open(path));
    const replay = await attempt(`read ${path}`, async () => {
      const reader = new RecordingReader((target) => file.readSync(target) ?? 0);
      const begun = begin(reader, options, path);
      await goOn(begun, until);
      return begun;
    });
    const tree = values["tree"] === true ? treeOf(replay.device) : undefined;
    if (values["json"] === true) await printJson(streams, outcome(replay, tree));
    else await printPieces(streams, tree === undefined ? report(replay, path) : [dumpText(tree)]);
    if (replay.problem !== undefined) {
      throw new CommandError(`Cannot replay ${path} to its end: ${replay.problem}`);
    }
    const { difference } = replay.requests;
    if (difference !== undefined) throw new CommandError(`Not as recorded: ${difference}`);
    return 0;
  },
};

/** How a recording is replayed. */
function replayOptions(values: OptionValues): ReplayOptions {
  const formats = oneOf(...formatNames());
  return {
    format: parsedOption(values, "format", formats.read, formats.form),
    maxTableMemory: parsedOption(values, "max-table-memory", parseSize, "a size such as 1G") ??
      MOST_TABLE_MEMORY,
  };
}

/** Begins, or says why that cannot be. */
function begin(reader: RecordingReader, options: ReplayOptions, path: string): Replay {
  const begun = Replay.begin(reader, options);
  if (typeof begun === "string") throw new CommandError(`Cannot replay ${path}: ${begun}`);
  return begun;
}

/** Replays as far as asked. */
async function goOn(replay: Replay, until: Until): Promise<void> {
  for (let records = 1; replay.requests.served < until.requests; records++) {
    if (!replay.step(until.time)) return;
    if (records % RECORDS_PER_TURN === 0) await new Promise((resolve) => setTimeout(resolve));
  }
}

/** Measures. */
async function bench(path: string, options: ReplayOptions, streams: Streams): Promise<number> {
  const bytes = await readInput(path, BENCH_MAX, "record less of it", streams);
  const times = measureReplay(bytes, options, BENCH_MS);
  if (typeof times === "string") throw new CommandError(`Cannot replay ${path}: ${times}`);
  const { requests, mapsAndUnmaps, milliseconds, rounds } = times;
  const each = requests === 0 ? 0 : milliseconds * 1000 / requests;
  await streams.write(
    `${requests} requests, ${mapsAndUnmaps} of them MAP or UNMAP, in ${
      milliseconds.toFixed(3)
    } ms: ` +
      `${each.toFixed(2)} us each (best of ${rounds} rounds)\n`,
  );
  return 0;
}

/** The tables of every endpoint that is attached. */
function treeOf({ endpoints }: IommuDevice): readonly DumpEndpoint[] {
  return endpoints.list().flatMap(({ id, domain, unit }) => {
    if (domain === undefined || unit === undefined) return [];
    const tree = dumpEndpoint(unit, id % 65536, NO_PASID);
    return tree === null ? [] : [{ ...tree, sid: `0x${id.toString(16)}` }];
  });
}

/** What is said of a replay. */
function* report(replay: Replay, path: string): Generator<string> {
  const { configuration: { program, began, frames, device }, requests, time } = replay;
  const formats = [...new Set(replay.device.endpoints.formats)].join(", ");
  yield `${path}: recorded by viommu ${program} at ${new Date(began).toISOString()}` +
    `${frames === "host" ? ", with host frames" : ""}; tables ${formats}, ` +
    `${device.bypass ? "bypass" : "no bypass"} at power-on\n`;
  yield `${requests.served} requests in ${secondsText(time)}, ` +
    `${requests.difference === undefined ? "each answered as recorded" : "not all as recorded"}; ` +
    `${endText(replay)}\n`;
  for (const { id, bypass, endpoints, space } of replay.device.iommu.domains) {
    const names = [...endpoints].map((endpoint) => endpointText(endpoint.id)).join(" ");
    yield bypass
      ? `domain ${id}: bypass; endpoints ${names}\n`
      : `domain ${id}: ${space.mappingCount} mappings, ${space.pageCount} pages; endpoints ${names}\n`;
  }
}

/** How the recording ends. */
function endText({ end, isCut, problem }: Replay): string {
  if (problem !== undefined) return "the rest cannot be read";
  if (end !== undefined) return `the recording ended: ${end}`;
  return isCut ? "the file was cut there" : "the recording goes on";
}

/** The same as JSON. */
function outcome(replay: Replay, tree: readonly DumpEndpoint[] | undefined): unknown {
  const { configuration, requests, time, problem, isCut, end, device } = replay;
  return {
    program: configuration.program,
    began: configuration.began,
    frames: configuration.frames,
    formats: device.endpoints.formats,
    requests: requests.served,
    microseconds: time,
    difference: requests.difference ?? null,
    problem: problem ?? null,
    isCut,
    end: end ?? null,
    domains: device.iommu.domains.map(({ id, bypass, endpoints, space }) => ({
      id,
      bypass,
      endpoints: [...endpoints].map((endpoint) => endpoint.id),
      mappings: space.mappingCount,
      pages: space.pageCount,
    })),
    ...(tree === undefined ? {} : { tables: tree }),
  };
}

/** `N`, or a time. */
function parseUntil(text: string): Until | undefined {
  const [, number, unit] = /^([0-9]+(?:\.[0-9]+)?)(s|ms|us)$/.exec(text) ?? [];
  if (number !== undefined) {
    const scale = { s: 1e6, ms: 1e3, us: 1 }[unit] ?? 1;
    return { requests: Infinity, time: Number(number) * scale };
  }
  const requests = parseNumber(text, Number.MAX_SAFE_INTEGER);
  return requests === undefined ? undefined : { requests, time: Infinity };
}
