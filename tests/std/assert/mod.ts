/**
 * Stands in for `jsr:@std/assert@1.0.18`: the same code, from npm, with the types of the functions
 * this project uses.
 *
 * @module
 */
import * as std from "deno-std/assert/mod.js";

/** The class of an error, abstract or not. */
type ErrorClass<E extends Error> = abstract new (...args: never[]) => E;

/** Fails unless the condition is truthy. */
export const assert: (condition: unknown, message?: string) => asserts condition = std.assert;

/** Fails unless both values are deeply equal. */
export const assertEquals: <T>(actual: T, expected: T, message?: string) => void = std.assertEquals;

/** Fails if both values are deeply equal. */
export const assertNotEquals: <T>(actual: T, expected: T, message?: string) => void =
  std.assertNotEquals;

/** Fails unless both values are the same by `Object.is`. */
export const assertStrictEquals: <T>(
  actual: unknown,
  expected: T,
  message?: string,
) => asserts actual is T = std.assertStrictEquals;

/** Fails if the value is null or undefined. */
export const assertExists: <T>(
  actual: T,
  message?: string,
) => asserts actual is NonNullable<T> = std.assertExists;

/** Fails unless the text contains the expected part. */
export const assertStringIncludes: (actual: string, expected: string, message?: string) => void =
  std.assertStringIncludes;

/** Fails unless the text matches. */
export const assertMatch: (actual: string, expected: RegExp, message?: string) => void =
  std.assertMatch;

/** Fails unless actual < expected. */
export const assertLess: <T>(actual: T, expected: T, message?: string) => void = std.assertLess;

/** Fails unless actual <= expected. */
export const assertLessOrEqual: <T>(actual: T, expected: T, message?: string) => void =
  std.assertLessOrEqual;

/** Fails unless actual >= expected. */
export const assertGreaterOrEqual: <T>(actual: T, expected: T, message?: string) => void =
  std.assertGreaterOrEqual;

/** Fails unless the function throws an error of the class whose message contains the text. */
export const assertThrows: <E extends Error = Error>(
  fn: () => unknown,
  errorClass?: ErrorClass<E>,
  messageIncludes?: string,
  message?: string,
) => E = std.assertThrows;

/** Fails unless the promise is rejected with an error of the class whose message contains the text. */
export const assertRejects: <E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  errorClass?: ErrorClass<E>,
  messageIncludes?: string,
  message?: string,
) => Promise<E> = std.assertRejects;

/** Always fails. */
export const fail: (message?: string) => never = std.fail;
