/**
 * Answers a FUSE request with an error in the server's place.
 *
 * Source: the kernel's `include/uapi/linux/fuse.h`. A request begins with length u32, opcode u32, unique u64; an answer
 * with length u32, error i32 (0 or a negative errno), unique u64. Requests without room for an answer have none.
 */
import type { Chain } from "../../../vring/mod.ts";

/** Bytes of both headers that matter. */
const HEADER_BYTES = 16;
const EIO = 5;

const header = new Uint8Array(HEADER_BYTES);
const data = new DataView(header.buffer);

/** Writes the error EIO into a request. Returns how many bytes were written. */
export function answerWithError(chain: Chain): number {
  if (chain.writableLength < HEADER_BYTES) return 0;
  if (chain.gather(header) !== HEADER_BYTES) return 0;
  data.setUint32(0, HEADER_BYTES, true);
  data.setInt32(4, -EIO, true);
  return chain.scatter(0, header) === HEADER_BYTES ? HEADER_BYTES : 0;
}
