/**
 * The command line in this process, with standard input, output and error of its own.
 *
 * @module
 */
import { main } from "../../../device/command/main.ts";
import type { Streams } from "../../../device/command/streams.ts";

/** What a command printed, and how it ended. */
export interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** What a command finds around it. */
export interface Surroundings {
  /** Its standard input; bytes are sent once. */
  readonly input?: string | Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array<ArrayBuffer>>;
  /** What a write to standard output fails with. */
  readonly outputError?: Error;
}

/** Runs a command line. */
export async function viommu(
  args: readonly string[],
  { input = "", outputError }: Surroundings = {},
): Promise<Outcome> {
  const decoder = new TextDecoder();
  let out = "";
  let err = "";
  const streams: Streams = {
    input: input instanceof ReadableStream ? input : new Blob([input]).stream(),
    isTerminal: false,
    write(data) {
      if (outputError !== undefined) return Promise.reject(outputError);
      out += typeof data === "string" ? data : decoder.decode(data, { stream: true });
      return Promise.resolve();
    },
    writeError: (line) => void (err += `${line}\n`),
  };
  const code = await main(args, streams);
  return { code, out, err };
}

/** A stream of the same bytes again and again. */
export function endless(bytes: Uint8Array<ArrayBuffer>): ReadableStream<Uint8Array<ArrayBuffer>> {
  return new ReadableStream({ pull: (controller) => controller.enqueue(bytes) });
}
