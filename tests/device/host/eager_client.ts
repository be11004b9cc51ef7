/**
 * A program that connects to the sockets of its arguments, one after the other, as soon as they are there: of each it
 * prints what the first attempt came to that found a file.
 *
 * @module
 */
import { OsError, UnixStream } from "../../../device/host/mod.ts";

if (import.meta.main) console.log(Deno.args.map(firstAttempt).join("\n"));

function firstAttempt(path: string): string {
  for (;;) {
    try {
      const stream = UnixStream.tryConnect(path);
      stream?.close();
      return stream === undefined ? "refused" : "connected";
    } catch (error) {
      if (!(error instanceof OsError)) throw error;
      if (error.code !== "ENOENT") return error.code;
    }
  }
}
