/** A body in chunks (RFC 9112, 7.1), decoded as it arrives. */
import { ApiError } from "./context.ts";

/** Bytes of a line between chunks. */
const LINE_MAX = 256;
/** Lines behind the last chunk. */
const TRAILERS_MAX = 32;

/** Finds the data in a body of chunks. */
export class ChunkDecoder {
  /** What the line under way has so far. */
  #line = "";
  /** Bytes of data that the chunk under way still has. */
  #left = 0;
  /** What comes next: a chunk's size, its data, the line end behind them, the trailer. */
  #expects: "size" | "data" | "end" | "trailer" = "size";
  #trailers = 0;
  /** Whether the body has ended. */
  isDone = false;
  /** Where the data found last begin and end. */
  start = 0;
  /** Index behind the data found last. */
  end = 0;

  /**
   * Looks at bytes `[from, to)` for the next data, which are then at `[start, end)`; empty if there are none.
   *
   * @returns Where to go on.
   * @throws {ApiError} If these are no chunks.
   */
  next(bytes: Uint8Array, from: number, to: number): number {
    this.start = from;
    this.end = from;
    let at = from;
    while (at < to && !this.isDone) {
      if (this.#expects === "data") {
        this.start = at;
        this.end = Math.min(to, at + this.#left);
        this.#left -= this.end - at;
        if (this.#left === 0) this.#expects = "end";
        return this.end;
      }
      const byte = bytes[at++];
      if (byte !== 0x0a) {
        this.#line += String.fromCharCode(byte);
        if (this.#line.length > LINE_MAX) throw malformed();
        continue;
      }
      if (!this.#line.endsWith("\r")) throw malformed();
      this.#takeLine(this.#line.slice(0, -1));
      this.#line = "";
    }
    return at;
  }

  #takeLine(line: string): void {
    if (this.#expects === "end") {
      if (line !== "") throw malformed();
      this.#expects = "size";
    } else if (this.#expects === "size") {
      const size = /^([0-9a-fA-F]{1,8})[ \t]*(;.*)?$/.exec(line);
      if (size === null) throw malformed();
      this.#left = parseInt(size[1], 16);
      this.#expects = this.#left === 0 ? "trailer" : "data";
    } else if (line === "") {
      this.isDone = true;
    } else if (++this.#trailers > TRAILERS_MAX) {
      throw malformed();
    }
  }
}

function malformed(): ApiError {
  return new ApiError(400, "Cannot read the body: its chunks are malformed");
}
