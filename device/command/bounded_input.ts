/** Reads input of unknown length up to a limit. */
import { CommandError } from "./errors.ts";
import { attempt } from "./host_error.ts";
import { STANDARD_STREAM } from "./output_file.ts";
import type { Streams } from "./streams.ts";

/**
 * Reads a stream to its end.
 *
 * @param most The limit in bytes.
 * @param what What is read, for the message.
 * @param hint What to do about too much of it, for the message.
 * @throws {CommandError} If there are more.
 */
export async function readBounded(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  most: number,
  what: string,
  hint: string,
): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  await attempt(`read ${what}`, async () => {
    for await (const part of stream) {
      length += part.length;
      if (length > most) {
        throw new CommandError(
          `Cannot read ${what}: it has more than ${most / 2 ** 20} MiB; ${hint}`,
        );
      }
      parts.push(part);
    }
  });
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/**
 * Reads a file to its end, or standard input for `-`; as {@linkcode readBounded}.
 *
 * @throws {CommandError} If it cannot be read, or there is more.
 */
export async function readInput(
  path: string,
  most: number,
  hint: string,
  streams: Streams,
): Promise<Uint8Array<ArrayBuffer>> {
  if (path === STANDARD_STREAM) {
    return await readBounded(streams.input, most, "standard input", hint);
  }
  return await attempt(`read ${path}`, async () => {
    using file = await Deno.open(path);
    return await readBounded(file.readable, most, path, hint);
  });
}
