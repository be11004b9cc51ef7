/**
 * Stands in for `jsr:@std/async@1.1.1`: the same code, from npm, with the types of the functions
 * this project uses.
 *
 * @module
 */
import * as std from "deno-std/async/mod.js";

/** Options of {@linkcode deadline}. */
export interface DeadlineOptions {
  /** Ends the wait early. */
  signal?: AbortSignal;
}

/** Options of {@linkcode delay}. */
export interface DelayOptions {
  /** Ends the wait early. */
  signal?: AbortSignal;
  /** Whether the timer keeps the process alive; true by default. */
  persistent?: boolean;
}

/** Rejects with a `DOMException` named TimeoutError if the promise is not settled in time (milliseconds). */
export const deadline: <T>(
  promise: Promise<T>,
  milliseconds: number,
  options?: DeadlineOptions,
) => Promise<T> = std.deadline;

/** Resolves after the given time in milliseconds. */
export const delay: (milliseconds: number, options?: DelayOptions) => Promise<void> = std.delay;
