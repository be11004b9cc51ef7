/**
 * The error numbers of the pages engine: those of the page tables plus what only an engine can say.
 *
 * Numbered as Linux numbers them, positive, 0 is success. What a guest can provoke is answered with one of
 * these; an exception is a bug of ours or an error of the host.
 *
 * @module
 */
export * from "../pagetable/errno.ts";

/** The mapping or the access does not permit this. */
export const EPERM = 1;
/** Something still uses it, or the address space is in the middle of a change. */
export const EBUSY = 16;
/** No free I/O address range is large enough. */
export const ENOSPC = 28;
/** A holder of pins did not let go although asked repeatedly. */
export const EDEADLK = 35;
/** A range wraps around or ends beyond what can be numbered. */
export const EOVERFLOW = 75;
