/**
 * The error numbers that page tables and the pages engine return, with the values of Linux.
 *
 * An operation that a guest can make fail returns one of these and does not throw; 0 is success.
 */

/** Success. */
export const OK = 0;
/** Not found. */
export const ENOENT = 2;
/** Out of memory of the kind the operation takes: table pages, pins, ids. */
export const ENOMEM = 12;
/** An address without memory behind it. */
export const EFAULT = 14;
/** Already exists. */
export const EEXIST = 17;
/** An invalid argument. */
export const EINVAL = 22;
/** A value that the format cannot express. */
export const ERANGE = 34;
/** Not supported. */
export const EOPNOTSUPP = 95;
/** An address is in use. */
export const EADDRINUSE = 98;

/** An error number: {@linkcode OK} or one of the `E…` constants. */
export type Errno = number;
