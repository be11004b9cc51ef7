/**
 * The error numbers that page tables and the pages engine answer with, as Linux numbers them.
 *
 * An operation a guest can provoke answers with one of these instead of throwing; 0 is success.
 * Errors are positive, so that a result that is a count or a frame elsewhere stays unambiguous.
 *
 * @module
 */

/** Success. */
export const OK = 0;
/** What was asked for is not there. */
export const ENOENT = 2;
/** Out of memory of the kind the operation takes: table pages, pins, ids. */
export const ENOMEM = 12;
/** An address is not backed by anything. */
export const EFAULT = 14;
/** Something is already there. */
export const EEXIST = 17;
/** An argument has a value that can never be right here. */
export const EINVAL = 22;
/** A value lies outside what the format can express. */
export const ERANGE = 34;
/** What was asked for is not supported. */
export const EOPNOTSUPP = 95;
/** An address is in use. */
export const EADDRINUSE = 98;

/** An error number: {@linkcode OK} or one of the `E…` constants. */
export type Errno = number;
