/**
 * Which system calls `serve` makes in its sandbox: puts everything of `load.ts` on one under strace, and compares with the
 * lists of `device/sandbox/allowed_calls.ts`.
 *
 * ```sh
 * deno run -A tests/device/sandbox/measure.ts
 * ```
 *
 * Counted are the calls of each thread of the process from its seccomp filter on, refused ones included. The exit code is
 * 1 if a call is made that is not listed.
 *
 * @module
 */
import { ALLOWED, FATAL } from "../../../device/sandbox/allowed_calls.ts";
import { NOTHING_NEEDED } from "../../../device/sandbox/mod.ts";
import { rulesOf } from "../../../device/sandbox/filter.ts";
import { exitCode, kill, start } from "../served_process.ts";
import { loadOptions, useEverything } from "./load.ts";

/** A line of strace: thread, "<... " if it goes on, name, the rest. */
const LINE = /^(\d+) +(<\.\.\. )?(\w+)(?:\(| resumed>)(.*)$/;

/** What strace has written, looked through line by line. */
class Trace {
  /** How often each call was made in a sandbox, by name. */
  readonly counts = new Map<string, number>();
  /** The process of each thread. */
  readonly #processes = new Map<number, number>();
  readonly #confined = new Set<number>();
  /** Calls that have begun in a thread: what its beginning says. */
  readonly #begun = new Map<number, string>();

  /** Takes a line. */
  take(line: string): void {
    const match = LINE.exec(line);
    if (match === null) return;
    const [, id, resumed, name, rest] = match;
    const thread = Number(id);
    const process = this.#processes.get(thread) ?? thread;
    if (resumed === undefined && this.#confined.has(process)) {
      this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
    }
    if (rest.endsWith("<unfinished ...>")) {
      this.#begun.set(thread, rest);
      return;
    }
    const whole = resumed === undefined ? rest : `${this.#begun.get(thread)} ${rest}`;
    const result = Number(/= (\d+)\D*$/.exec(whole)?.[1] ?? -1);
    if (name.startsWith("clone") && result > 0 && whole.includes("CLONE_THREAD")) {
      this.#processes.set(result, process);
    } else if (name === "seccomp" && whole.startsWith("SECCOMP_SET_MODE_FILTER") && result === 0) {
      this.#confined.add(process);
    }
  }
}

/** Puts the load on a `serve` under strace, and has it end; what strace has written. */
async function trace(folder: string): Promise<Trace> {
  const file = `${folder}/strace`;
  // As a grandchild (-D), so that signals go to `serve`.
  const strace = ["strace", "-D", "-f", "-qq", "-e", "signal=none", "-o", file];
  const served = await start(folder, loadOptions(folder), {}, strace);
  try {
    await useEverything(served);
    served.process.kill("SIGTERM");
    await exitCode(served.process);
  } finally {
    await kill(served.process);
    await served.log;
  }
  const found = new Trace();
  for (const line of (await Deno.readTextFile(file)).split("\n")) found.take(line);
  return found;
}

const folder = await Deno.makeTempDir();
try {
  const { counts } = await trace(folder);
  const rules: ReadonlyMap<string, unknown> = rulesOf(NOTHING_NEEDED, 0);
  const made = [...counts].sort(([, one], [, other]) => other - one);
  console.log("made:", made.map(([name, count]) => `${name} ${count}`).join(", "));
  console.log("listed, not made:", ALLOWED.filter((name) => !counts.has(name)).join(", "));
  const unlisted = made.map(([name]) => name).filter((name) => !rules.has(name));
  const ending = FATAL.filter((name) => counts.has(name));
  console.log("made, not listed:", [...unlisted, ...ending].join(", "));
  if (unlisted.length + ending.length > 0) Deno.exitCode = 1;
} finally {
  await Deno.remove(folder, { recursive: true });
}
