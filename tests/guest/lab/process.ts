/**
 * Runs a host program to its end and collects what it wrote.
 *
 * @module
 */

/** A host program that failed; the message carries what it wrote to its standard error. */
export class ProgramError extends Error {
  override readonly name = "ProgramError";
}

/** How to run a program. */
export interface RunOptions {
  /** Working folder; the caller's when missing. */
  readonly cwd?: string;
  /** Variables added to the caller's environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Milliseconds after which the program is killed and the run fails. */
  readonly deadline?: number;
}

/** Runs `command[0]` with the rest as arguments; returns its standard output. Throws ProgramError. */
export async function run(
  command: readonly string[],
  options: RunOptions = {},
): Promise<Uint8Array<ArrayBuffer>> {
  const [program, ...args] = command;
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(), options.deadline ?? 300_000);
  try {
    const child = new Deno.Command(program, {
      args,
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      env: { LC_ALL: "C", DEBIAN_FRONTEND: "noninteractive", ...options.env },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      signal: limit.signal,
    });
    const { code, signal, stdout, stderr } = await child.output();
    if (code === 0 && signal === null) return stdout as Uint8Array<ArrayBuffer>;
    const why = limit.signal.aborted
      ? `no end after ${options.deadline ?? 300_000} ms`
      : new TextDecoder().decode(stderr).trim() || `exit status ${code}`;
    throw new ProgramError(`Cannot run ${command.join(" ")}: ${why}`);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      throw new ProgramError(`Cannot run ${program}: not found on this machine`);
    }
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** Like {@linkcode run}, with the output as text. */
export async function runText(
  command: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  return new TextDecoder().decode(await run(command, options));
}

/** Whether the program starts and ends with status 0. */
export async function works(
  command: readonly string[],
  options: RunOptions = {},
): Promise<boolean> {
  try {
    await run(command, options);
    return true;
  } catch (error) {
    if (error instanceof ProgramError) return false;
    throw error;
  }
}
