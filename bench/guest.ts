/**
 * How long a guest waits for its IOMMU: QEMU's built-in virtio-iommu and ours, in one run.
 *
 * Two guests of the same kernel and machine are booted, one behind each device, and stay up. In turn, each maps and
 * unmaps 4 KiB pages one by one through VFIO, so that other load of the machine affects both alike. The other guest is
 * stopped meanwhile: an idle guest takes 2 % of a processor, which would slow down a device with a processor of its own,
 * and not one in the guest's thread. Timed, in the guest, is a call of VFIO: the system call, the driver's work, and the
 * wait for the device. The ratio of a round compares two measurements that follow each other; medians are over all rounds. A guest's
 * speed depends, by some 5 % for as long as it is up, on where its pages and the emulator's code are placed, so several
 * pairs of guests share the rounds.
 *
 * Usage: deno task bench:guest [--rounds N] [--count N] [--boots N] [--json FILE]
 *
 * @module
 */
import { parseArgs } from "node:util";
import { EDU_SLOT, Guest, type Lab, machineArguments, prepareLab } from "../tests/guest/lab/mod.ts";
import { attachArguments, ServedDevice } from "../tests/guest/served_device.ts";
import { temporaryFolder } from "../tests/guest/temporary_folder.ts";

/** I/O address of the pieces that are mapped. */
const IOVA = 0x1000_0000;
/** Bytes of one piece. */
const PIECE = 4096;
/** Untimed calls first: caches and timers have to settle after a guest was stopped. */
const WARM_UP = 1000;

/** Microseconds per call. */
interface Cost {
  readonly map: number;
  readonly unmap: number;
}

/** One round: the cost of each device. */
export interface Round {
  readonly builtIn: Cost;
  readonly ours: Cost;
}

/** The result of a run. */
export interface GuestBench {
  /** Pairs of guests that shared the rounds. */
  readonly boots: number;
  /** Calls of each kind in a round. */
  readonly count: number;
  readonly rounds: readonly Round[];
  /** Medians in microseconds, and medians of the ratios of the rounds. */
  readonly builtIn: Cost;
  readonly ours: Cost;
  readonly ratio: Cost;
}

/** The middle of a list; of two middles the mean. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Boots a guest with devices, ready to map for the `edu` device. */
async function bootForVfio(
  lab: Lab,
  initramfs: string,
  devices: readonly string[],
): Promise<Guest> {
  const guest = await Guest.boot(
    lab.qemu,
    machineArguments("x86_64", {
      kernel: lab.kernel,
      initramfs,
      devices: [...devices, "-device", `edu,addr=${EDU_SLOT}`],
    }),
  );
  try {
    await guest.openVfio(`0000:00:0${EDU_SLOT}.0`);
    return guest;
  } catch (error) {
    await guest[Symbol.asyncDispose]();
    throw error;
  }
}

/** What to run. */
export interface GuestBenchOptions {
  /** Calls of each kind in a round. */
  readonly count: number;
  /** Rounds altogether. */
  readonly rounds: number;
  /** Pairs of guests that share the rounds, one after the other. */
  readonly boots: number;
}

/** Used unless the options say otherwise. */
export const DEFAULTS: GuestBenchOptions = { count: 10_000, rounds: 21, boots: 3 };

/** Runs the comparison; `say` gets lines about its progress. */
export async function guestBench(
  { count, rounds, boots }: GuestBenchOptions,
  say: (line: string) => void,
): Promise<GuestBench> {
  const lab = await prepareLab("x86_64");
  const results: Round[] = [];
  for (let boot = 1; boot <= boots; boot++) {
    say(`booting a guest behind QEMU's virtio-iommu, and one behind ours (${boot} of ${boots})`);
    const end = Math.round(rounds * boot / boots);
    await pairOfGuests(lab, count, end - results.length, (round) => {
      results.push(round);
      say(`round ${results.length}: ${roundText(round)}`);
    });
  }
  return { boots, ...summary(count, results) };
}

/** Boots a guest behind each device and runs so many rounds; yields each as soon as it is done. */
async function pairOfGuests(
  lab: Lab,
  count: number,
  rounds: number,
  onRound: (round: Round) => void,
): Promise<void> {
  await using folder = await temporaryFolder();
  const initramfs = `${folder.path}/initramfs.gz`;
  await lab.writeInitramfs(initramfs);
  await using device = await ServedDevice.start(folder.path);
  await using builtInGuest = await bootForVfio(lab, initramfs, [
    "-device",
    "virtio-iommu-pci,addr=2",
  ]);
  await using oursGuest = await bootForVfio(
    lab,
    initramfs,
    await attachArguments(device, folder.path),
  );
  for (const guest of [builtInGuest, oursGuest]) {
    // The emulator translates what it runs often.
    await guest.bench(IOVA, PIECE, count);
    guest.freeze();
  }
  for (let i = 0; i < rounds; i++) {
    onRound({
      builtIn: await benchAlone(builtInGuest, count),
      ours: await benchAlone(oursGuest, count),
    });
  }
  for (const guest of [builtInGuest, oursGuest]) {
    guest.thaw();
    await guest.powerOff();
  }
}

/** Continues a stopped guest, lets it map and unmap, and stops it again. */
async function benchAlone(guest: Guest, count: number): Promise<Cost> {
  guest.thaw();
  await guest.bench(IOVA, PIECE, WARM_UP);
  const cost = await guest.bench(IOVA, PIECE, count);
  guest.freeze();
  return cost;
}

/** Medians over the rounds. */
function summary(count: number, rounds: readonly Round[]): Omit<GuestBench, "boots"> {
  function of(pick: (round: Round) => Cost): Cost {
    return {
      map: median(rounds.map((round) => pick(round).map)),
      unmap: median(rounds.map((round) => pick(round).unmap)),
    };
  }
  return {
    count,
    rounds,
    builtIn: of((round) => round.builtIn),
    ours: of((round) => round.ours),
    ratio: of(({ ours, builtIn }) => ({
      map: ours.map / builtIn.map,
      unmap: ours.unmap / builtIn.unmap,
    })),
  };
}

/** A round as text. */
function roundText({ builtIn, ours }: Round): string {
  const ratios = [ours.map / builtIn.map, ours.unmap / builtIn.unmap];
  return `QEMU ${costText(builtIn)}, ours ${costText(ours)}, ratio ${
    ratios.map((ratio) => ratio.toFixed(2)).join(" / ")
  }`;
}

/** A cost as text. */
function costText({ map, unmap }: Cost): string {
  return `${map.toFixed(1)} / ${unmap.toFixed(1)} us`;
}

const HELP =
  `Compares what a guest waits for QEMU's virtio-iommu and for ours: 4 KiB VFIO maps and unmaps.

Usage: deno task bench:guest [--rounds N] [--count N] [--boots N] [--json FILE]

  --rounds N   rounds altogether, each device once in each (${DEFAULTS.rounds})
  --count N    maps and as many unmaps of a round (${DEFAULTS.count})
  --boots N    pairs of guests that share the rounds (${DEFAULTS.boots})
  --json FILE  writes every round there, too
  --help       shows this`;

/** The options of the command line; `undefined` for `--help`. Throws a TypeError of one line for anything else. */
function parseArguments(): GuestBenchOptions & { readonly json?: string } | undefined {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: `${DEFAULTS.rounds}` },
      count: { type: "string", default: `${DEFAULTS.count}` },
      boots: { type: "string", default: `${DEFAULTS.boots}` },
      json: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return undefined;
  return {
    rounds: parseCount("rounds", values.rounds),
    count: parseCount("count", values.count),
    boots: parseCount("boots", values.boots),
    ...(values.json === undefined ? {} : { json: values.json }),
  };
}

function parseCount(name: string, text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new TypeError(`Cannot take --${name} ${text}: a number from 1 on is needed`);
}

/** Measures and prints. */
async function main(): Promise<number> {
  let options;
  try {
    options = parseArguments();
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    console.error(`bench:guest: ${error.message}`);
    return 2;
  }
  if (options === undefined) {
    console.log(HELP);
    return 0;
  }
  const result = await guestBench(options, console.error);
  console.log(
    `a 4 KiB VFIO map / unmap, median of ${result.rounds.length} rounds of ${result.count}:\n` +
      `  QEMU's virtio-iommu  ${costText(result.builtIn)}\n` +
      `  viommu               ${costText(result.ours)}\n` +
      `  ratio                ${result.ratio.map.toFixed(2)} / ${result.ratio.unmap.toFixed(2)}`,
  );
  if (options.json !== undefined) {
    await Deno.writeTextFile(options.json, JSON.stringify(result, null, 2) + "\n");
  }
  return 0;
}

if (import.meta.main) Deno.exitCode = await main();
