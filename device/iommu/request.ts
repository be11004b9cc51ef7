/**
 * One request of the guest, copied from its memory once and then decoded.
 *
 * The readable part of a request (virtio 1.4, 5.13.6) is gathered into {@linkcode Request.bytes}. It is not read from
 * guest memory again, so a guest that writes to it meanwhile changes nothing. The fields are plain numbers of a reused
 * object: decoding allocates nothing.
 *
 * A 64-bit address is split into a page number (address / 4096, exact as `number`) and the 12 bits below
 * it. The host is little endian, as the wire is: every platform this runs on (x86-64, arm64 Linux) is.
 */
import {
  READABLE_SIZE_MAX,
  READABLE_SIZES,
  T_ATTACH,
  T_DETACH,
  T_MAP,
  T_PROBE,
  T_UNMAP,
} from "./wire.ts";

/** Pages in 2^32 bytes: what one unit of the high word of an address is worth. */
const PAGES_PER_HIGH_UNIT = 2 ** 20;

/** The decoded readable part of a request. */
export class Request {
  /** Where the readable part is gathered; longer than any request. */
  readonly bytes: Uint8Array<ArrayBuffer> = new Uint8Array(READABLE_SIZE_MAX);
  /** The same bytes as 32-bit words. */
  readonly words: Int32Array<ArrayBuffer> = new Int32Array(this.bytes.buffer);

  /** How many bytes of {@linkcode bytes} are the request's. */
  length = 0;
  /** Request type, 0 for one that the specification does not know. */
  type = 0;
  /** Domain id (ATTACH, DETACH, MAP, UNMAP). */
  domain = 0;
  /** Endpoint id (ATTACH, DETACH, PROBE). */
  endpoint = 0;
  /** Flags (ATTACH, MAP). */
  flags = 0;
  /** Whether a reserved field that must be zero is (ATTACH, UNMAP). */
  reservedZero = true;
  /** Page of `virt_start` (MAP, UNMAP). */
  virtStartPage = 0;
  /** Bits 11:0 of `virt_start`. */
  virtStartOffset = 0;
  /** Page of `virt_end`, which is inclusive (MAP, UNMAP). */
  virtEndPage = 0;
  /** Bits 11:0 of `virt_end`; 0xfff where the range ends with a page. */
  virtEndOffset = 0;
  /** Frame of `phys_start` (MAP). */
  physStartFrame = 0;
  /** Bits 11:0 of `phys_start`. */
  physStartOffset = 0;

  /**
   * Decodes the first `length` bytes of {@linkcode bytes}.
   *
   * @param length How many bytes the guest offered, of which at most {@linkcode bytes}`.length` count.
   * @returns Whether the readable part is as long as its type requires. The type is set either way.
   */
  decode(length: number): boolean {
    const words = this.words;
    this.length = length;
    const type = length > 0 ? this.bytes[0] : 0;
    if (type < T_ATTACH || type > T_PROBE) {
      this.type = 0;
      return false;
    }
    this.type = type;
    if (length < READABLE_SIZES[type]) return false;
    // MAP and UNMAP come first: they are what a busy guest sends.
    if (type === T_MAP) {
      this.domain = words[1] >>> 0;
      this.#decodeVirtualRange(words);
      const low = words[6] >>> 0;
      this.physStartFrame = (words[7] >>> 0) * PAGES_PER_HIGH_UNIT + (low >>> 12);
      this.physStartOffset = low & 0xfff;
      this.flags = words[8] >>> 0;
    } else if (type === T_UNMAP) {
      this.domain = words[1] >>> 0;
      this.#decodeVirtualRange(words);
      this.reservedZero = words[6] === 0;
    } else if (type === T_ATTACH) {
      this.domain = words[1] >>> 0;
      this.endpoint = words[2] >>> 0;
      this.flags = words[3] >>> 0;
      this.reservedZero = words[4] === 0;
    } else if (type === T_DETACH) {
      this.domain = words[1] >>> 0;
      this.endpoint = words[2] >>> 0;
    } else {
      this.endpoint = words[1] >>> 0;
    }
    return true;
  }

  #decodeVirtualRange(words: Int32Array): void {
    const startLow = words[2] >>> 0;
    this.virtStartPage = (words[3] >>> 0) * PAGES_PER_HIGH_UNIT + (startLow >>> 12);
    this.virtStartOffset = startLow & 0xfff;
    const endLow = words[4] >>> 0;
    this.virtEndPage = (words[5] >>> 0) * PAGES_PER_HIGH_UNIT + (endLow >>> 12);
    this.virtEndOffset = endLow & 0xfff;
  }
}
