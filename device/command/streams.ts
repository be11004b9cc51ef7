/**
 * Standard input, output and error of a command: the process's own, or those of a program that runs commands in process.
 */
import { attempt } from "./host_error.ts";

/** The streams of a command. */
export interface Streams {
  /** Standard input. */
  readonly input: ReadableStream<Uint8Array<ArrayBuffer>>;
  /** Whether standard output is a terminal. */
  readonly isTerminal: boolean;
  /**
   * Writes all of a text or of bytes to standard output.
   *
   * @throws {Deno.errors.BrokenPipe} If its reader has closed it.
   */
  write(data: string | Uint8Array): Promise<void>;
  /** Writes a line to standard error; one that cannot be written is lost. */
  writeError(line: string): void;
}

const ENCODER = new TextEncoder();

/** The streams of this process. */
export const PROCESS_STREAMS: Streams = {
  get input() {
    return Deno.stdin.readable;
  },
  get isTerminal() {
    return Deno.stdout.isTerminal();
  },
  async write(data) {
    const bytes = typeof data === "string" ? ENCODER.encode(data) : data;
    await attempt("write to standard output", async () => {
      for (let done = 0; done < bytes.length;) {
        done += await Deno.stdout.write(bytes.subarray(done));
      }
    });
  },
  writeError: (line) => console.error(line),
};
