/**
 * What it costs to map and unmap for a device of the host: the pages engine over a page table of ours, the kernel's iommufd
 * by its calls, and both together, in one run of one program in an L1 guest (`tests/guest/l1/cost.ts`).
 *
 * Usage: deno task bench:iommufd
 *
 * @module
 */
import { edu, followProgram, prepareL1, startL1 } from "../tests/guest/l1_machine.ts";
import { temporaryFolder } from "../tests/guest/temporary_folder.ts";
import { benchArguments } from "./arguments.ts";

/** Microseconds a call, by who is called. */
type Costs = Readonly<Record<string, number>>;

/** The rows: the name under which the program tells it, and what it is. */
const ROWS: readonly (readonly [name: string, what: string])[] = [
  ["map-page-1000", "map one page, 10³ live"],
  ["unmap-page-1000", "unmap it"],
  ["map-page-100000", "map one page, 10⁵ live"],
  ["unmap-page-100000", "unmap it"],
  ["map-256", "map 256 pages in one call"],
  ["unmap-256", "unmap them"],
  ["map-gib", "map 1 GiB in one call"],
  ["unmap-gib", "unmap it"],
  ["table-1000", "make, fill and drop a further table, 10³ live"],
  ["table-100000", "the same, 10⁵ live"],
];
const COLUMNS = ["engine", "kernel", "both"];
/** MiB of L1: the RAM that is mapped, Deno, and the kernel. */
const MEMORY = 3072;

/** A time with two or three digits. */
function digits(value: number | undefined): string {
  if (value === undefined) return "–";
  return value < 10 ? value.toFixed(1) : Number(value.toPrecision(3)).toLocaleString("en");
}

/** Runs the program in L1, and returns the section of the report about it. */
export async function passthroughSection(
  machine: string,
  onLine: (line: string) => void,
): Promise<string> {
  const lab = await prepareL1();
  await using folder = await temporaryFolder();
  const devices = [4, 6].flatMap((slot) => edu(`addr=${slot}`));
  const programs = { cost: "what maps and unmaps cost" };
  await using l1 = await startL1(lab, folder.path, { programs, devices, memory: MEMORY });
  const told = new Map<string, unknown>();
  await followProgram(l1, "cost", told, async (check, outcome) => {
    onLine(`L1: ${check}`);
    await outcome();
  });
  const rows = ROWS.map(([name, what]) => {
    const costs = told.get(name) as Costs;
    return `| ${what} | ${COLUMNS.map((column) => digits(costs[column])).join(" | ")} |`;
  });
  return `## Passed-through devices

${machine} Linux ${lab.kernel.release} in QEMU ${lab.qemu.version} without KVM.

A program in a guest with an emulated VT-d maps RAM, 1 GiB in a memory file: through the pages engine into a VT-d table of ours; by calls of the kernel's iommufd into an I/O address space that a device is attached to; through the engine into both, which is what \`serve\` does for a passed-through device. The least of nine rounds in which they take turns, µs a call. \`getpid\` through the same FFI takes ${
    digits(told.get("getpid") as number)
  }.

| | engine, our table | kernel's iommufd | both |
|---|---:|---:|---:|
${rows.join("\n")}

The first two columns compare what a MAP and an UNMAP take in the two implementations of one design, the engine in TypeScript and its origin in C. They are not two ways to one result: only the kernel enters itself, pins pages and invalidates caches, which here is a trap into QEMU, and only the engine maps 1 GiB with one leaf. What hardware would take cannot be read from them.
`;
}

if (import.meta.main) {
  benchArguments("deno task bench:iommufd", []);
  console.log(await passthroughSection("", console.error));
}
