/**
 * What an entropy device with a seed gives.
 *
 * @module
 */
import { SeededRandom } from "../../../device/endpoint/mod.ts";

/** The first bytes of the sequence that begins with a seed. */
export function randomSequence(seed: number, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  new SeededRandom(seed).fill(bytes, length);
  return bytes;
}
