/**
 * A program that connects to the sockets of its arguments, one after the other, as soon as they are there: of each it
 * prints what the first attempt came to that found a file.
 *
 * @module
 */
import { UnixStream } from "../../../device/host/mod.ts";

if (import.meta.main) console.log(Deno.args.map(firstAttempt).join("\n"));

function firstAttempt(path: string): string {
  for (;;) {
    const stream = UnixStream.tryConnect(path);
    if (stream instanceof UnixStream) {
      stream.close();
      return "connected";
    }
    if (stream.code !== "ENOENT") return stream.code;
  }
}
