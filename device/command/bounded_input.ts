/**
 * Reading input of unknown length without being filled by it.
 *
 * @module
 */
import { CommandError } from "./errors.ts";

/**
 * Reads a stream to its end.
 *
 * @param most Bytes that are taken at most.
 * @param what What is read, and `hint` what to do about too much of it, for the message.
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
  for await (const part of stream) {
    length += part.length;
    if (length > most) {
      throw new CommandError(
        `Cannot read ${what}: it has more than ${most / 2 ** 20} MiB; ${hint}`,
      );
    }
    parts.push(part);
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
