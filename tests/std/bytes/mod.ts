/**
 * Stands in for `jsr:@std/bytes@1.0.6`: the same code, from npm, with the types of the functions
 * this project uses.
 *
 * @module
 */
import * as std from "deno-std/bytes/mod.js";

/** Joins byte arrays into a new one. */
export const concat: (parts: readonly Uint8Array[]) => Uint8Array<ArrayBuffer> = std.concat;

/** Whether two byte arrays hold the same bytes. */
export const equals: (a: Uint8Array, b: Uint8Array) => boolean = std.equals;
