/**
 * Runs all tests: those that boot guests or ask QEMU's IOMMUs, one after the other, beside those that do not. In the
 * long mode the others come behind them: a guest, the device, and a back end that polls take both processors of a small
 * machine.
 *
 * ```sh
 * deno task test                    # one boot of each kind
 * deno task test:full               # the full matrices and the long modes
 * deno task test --filter UNMAP     # arguments are handed on to `deno test`
 * ```
 *
 * Each line begins with the name of the run that it comes from. Both go on to their end; the exit code is 1 if either
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

/** What `deno test` is given, by the name of the run. */
const RUNS: Readonly<Record<string, readonly string[]>> = {
  guest: GUEST,
  unit: ["tests", `--ignore=${GUEST.join()}`],
};

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
const runs = Object.entries(RUNS).map(([name, args]) => () => run(name, [...args, ...Deno.args]));
const codes: number[] = [];
if (isLong) { for (const each of runs) codes.push(await each()); }
else codes.push(...await Promise.all(runs.map((each) => each())));
Deno.exit(codes.some((code) => code !== 0) ? 1 : 0);
