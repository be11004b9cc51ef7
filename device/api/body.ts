/**
 * The body of a request: a small JSON object, one of whose texts may be long and in hexadecimal.
 *
 * A JSON parser can be made to take long: half a second for 3 MB of `[`. So the body is read byte by byte as it
 * arrives. A text of more than {@linkcode SHORT} characters is decoded from
 * hexadecimal at once and leaves {@linkcode LONG_TEXT} in its place; what remains is short, or is refused.
 */
import { ApiError } from "./context.ts";

/** Bytes that a body has at most: enough for a megabyte in hexadecimal. */
export const BODY_MAX: number = 3 << 20;
/** Bytes that a body has at most besides its long text. */
const REST_MAX = 4096;
/** Characters of a text that is not long: enough for an option of `serve` with some paths in it. */
const SHORT = 2048;
/** What stands in place of the long text. */
export const LONG_TEXT = "(bytes in hexadecimal)";

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
/** Values of hexadecimal digits by their codes; 255 for other characters. */
const DIGITS = Uint8Array.from({ length: 256 }, (_, code) => {
  const value = parseInt(String.fromCharCode(code), 16);
  return Number.isNaN(value) ? 255 : value;
});

/** Takes a body apart. */
export class BodyReader {
  /** Bytes outside the long text. */
  readonly #rest = new Uint8Array(REST_MAX);
  #restLength = 0;
  #isRestTooLong = false;
  #isInText = false;
  #isEscaped = false;
  /** Where the text under way began in the rest. */
  #textStart = 0;
  /** The bytes of the long text, grown as they come; none if there was none, or if it is not hexadecimal. */
  #bytes = new Uint8Array(0);
  #digits = 0;
  #isLong = false;
  #longTexts = 0;
  #isHex = true;

  /** Takes bytes `[start, end)` of an array, as they arrived. */
  add(source: Uint8Array, start: number, end: number): void {
    for (let i = start; i < end; i++) {
      const byte = source[i];
      if (!this.#isInText) {
        this.#keep(byte);
        if (byte !== QUOTE) continue;
        this.#isInText = true;
        this.#textStart = this.#restLength;
      } else if (this.#isEscaped) {
        this.#isEscaped = false;
        this.#addToText(byte);
      } else if (byte === QUOTE) {
        this.#isInText = false;
        this.#isLong = false;
        this.#keep(byte);
      } else {
        this.#isEscaped = byte === BACKSLASH;
        this.#addToText(byte);
      }
    }
  }

  /**
   * The object, whose long text, if there was one, is the bytes that it stands for.
   *
   * @throws {ApiError} If the body is no such object.
   */
  finish(): Readonly<Record<string, unknown>> {
    const text = new TextDecoder().decode(this.#rest.subarray(0, this.#restLength));
    let value: unknown;
    try {
      if (!this.#isRestTooLong && this.#longTexts <= 1) value = JSON.parse(text);
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
    }
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new ApiError(400, "Cannot read the body: it must be a JSON object");
    }
    if (this.#longTexts === 0) return { ...value };
    const isWhole = this.#isHex && this.#digits % 2 === 0;
    const bytes = this.#bytes.subarray(0, this.#digits / 2);
    return Object.fromEntries(
      Object.entries(value).map((
        [name, part],
      ) => [name, part === LONG_TEXT && isWhole ? bytes : part]),
    );
  }

  #keep(byte: number): void {
    if (this.#restLength === REST_MAX) this.#isRestTooLong = true;
    else this.#rest[this.#restLength++] = byte;
  }

  #addToText(byte: number): void {
    if (this.#isLong) return this.#addDigit(byte);
    this.#keep(byte);
    if (this.#restLength - this.#textStart <= SHORT) return;
    this.#isLong = true;
    this.#longTexts++;
    for (let i = this.#textStart; i < this.#restLength; i++) this.#addDigit(this.#rest[i]);
    this.#restLength = this.#textStart;
    for (let i = 0; i < LONG_TEXT.length; i++) this.#keep(LONG_TEXT.charCodeAt(i));
  }

  #addDigit(byte: number): void {
    const value = DIGITS[byte];
    if (value === 255) this.#isHex = false;
    const at = this.#digits++ >>> 1;
    if (at === this.#bytes.length) this.#grow();
    this.#bytes[at] = this.#bytes[at] << 4 | value;
  }

  #grow(): void {
    const bytes = new Uint8Array(Math.max(4096, this.#bytes.length * 2));
    bytes.set(this.#bytes);
    this.#bytes = bytes;
  }
}
