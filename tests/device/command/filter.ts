/**
 * Commands as filters, each a process of its own that reads its standard input.
 *
 * @module
 */
import { MAIN } from "../served_process.ts";

/** What a command printed, and how it ended. */
export interface Filtered {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs a command whose standard input is `input`, again and again if it is to be endless. */
export async function filterBytes(
  args: readonly string[],
  input: Uint8Array<ArrayBuffer>,
  endless = false,
): Promise<Filtered> {
  const process = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--allow-read", "--allow-write", MAIN, ...args],
    env: { NO_COLOR: "1" },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = process.stdin.getWriter();
  const output = process.output();
  try {
    do await writer.write(input); while (endless);
  } catch {
    // A command that has seen enough, or refuses its arguments, reads no more.
  }
  await writer.close().catch(() => {});
  const { code, stdout, stderr } = await output;
  const text = new TextDecoder();
  return { code, out: text.decode(stdout), err: text.decode(stderr) };
}

/** Runs a command with a text on its standard input. */
export async function filter(input: string, ...args: readonly string[]): Promise<Filtered> {
  return await filterBytes(args, new TextEncoder().encode(input));
}
