/**
 * Runs all tests: those that boot guests or ask QEMU's IOMMUs, one after the other, beside those that do not. In the
 * long mode the others come behind them: a guest, the device, and a back end that polls take both processors of a small
 * machine. Beside the others are then guests in which everything runs that is tested, and which take one processor.
 *
 * ```sh
 * deno task test                    # one boot of each kind
 * deno task test:full               # the full matrices and the long modes
 * deno task test --filter UNMAP     # arguments are handed on to `deno test`
 * ```
 *
 * Each line begins with the name of the run that it comes from. All go on to their end; the exit code is 1 if one
 * fails.
 *
 * @module
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { isLong } from "./long_mode.ts";

/** What needs the guest lab. */
const GUEST = ["tests/guest", "tests/oracle", "tests/conformance/qemu_test.ts"];

/** Those of them in which everything that is tested runs in the guest. */
const L1 = [
  "tests/guest/passthrough_test.ts",
  "tests/guest/passthrough_arm64_test.ts",
  "tests/guest/passthrough_guest_test.ts",
];

const UNIT = ["tests", `--ignore=${GUEST.join()}`];

/** What `deno test` is given, by the name of the run: one group of runs after the other, those of a group at once. */
const RUNS: readonly Readonly<Record<string, readonly string[]>>[] = isLong
  ? [{ guest: [...GUEST, `--ignore=${L1.join()}`] }, { unit: UNIT, l1: L1 }]
  : [{ guest: GUEST, unit: UNIT }];

/** Runs some tests and prints their lines; the exit code. */
async function run(name: string, args: readonly string[]): Promise<number> {
  const child = spawn(Deno.execPath(), ["test", "--frozen", "--allow-all", ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on("line", (line) => console.log(`${name}: ${line}`));
  }
  const [code] = await once(child, "close");
  return code ?? 1;
}

// Ctrl-C reaches the runs themselves; this waits for what they still say.
Deno.addSignalListener("SIGINT", () => {});
const codes: number[] = [];
for (const group of RUNS) {
  const runs = Object.entries(group);
  codes.push(
    ...await Promise.all(runs.map(([name, args]) => run(name, [...args, ...Deno.args]))),
  );
}
Deno.exit(codes.some((code) => code !== 0) ? 1 : 0);
