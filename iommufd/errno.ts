/**
 * The error numbers of the pages engine: those of the page tables and those that only the engine answers.
 *
 * Numbered as in Linux: positive, and 0 is success. Whatever a guest can cause is answered with one of these; an exception
 * is a bug, or a failure of the host or the configuration.
 */
export * from "../pagetable/errno.ts";

/** The mapping or the access does not permit this. */
export const EPERM = 1;
/** Something still uses it, or another operation on the address space or page list runs. */
export const EBUSY = 16;
/** No free I/O address range is large enough. */
export const ENOSPC = 28;
/** An access did not unpin pages although asked repeatedly. */
export const EDEADLK = 35;
/** A range wraps around or ends beyond what can be numbered. */
export const EOVERFLOW = 75;
