/**
 * Tells at once that a process has died: a robust mutex (`pthread_mutexattr_setrobust(3)`) in shared memory, which the
 * main thread of the process holds until its end.
 *
 * A process that is killed closes its descriptors only after its memory has been freed, which takes some 5 ms, and 30 ms
 * with 400 MB of it; the kernel releases its robust mutexes first, within some 0.5 ms. (A process that is stopped has not
 * ended, and keeps them.)
 *
 * Needs glibc 2.34, whose `libc.so.6` has the functions of POSIX threads.
 */
import { libc } from "./libc.ts";
import { OsError } from "./os_error.ts";

/** Bytes that a mutex takes, of either architecture: 40 on x86-64, 48 on arm64. */
export const MUTEX_BYTES = 48;
/** Bytes of the attributes: 4 on x86-64, 8 on arm64. */
const ATTRIBUTE_BYTES = 8;
const PTHREAD_PROCESS_SHARED = 1;
const PTHREAD_MUTEX_ROBUST = 1;
/** The thread that held it has ended; it is locked for the caller. */
const EOWNERDEAD = 130;

const symbols = {
  attributeInit: {
    name: "pthread_mutexattr_init",
    parameters: ["buffer"],
    result: "i32",
  }, // int pthread_mutexattr_init(pthread_mutexattr_t *attr)
  setShared: {
    name: "pthread_mutexattr_setpshared",
    parameters: ["buffer", "i32"],
    result: "i32",
  }, // int pthread_mutexattr_setpshared(pthread_mutexattr_t *attr, int pshared)
  setRobust: {
    name: "pthread_mutexattr_setrobust",
    parameters: ["buffer", "i32"],
    result: "i32",
  }, // int pthread_mutexattr_setrobust(pthread_mutexattr_t *attr, int robustness)
  init: { name: "pthread_mutex_init", parameters: ["buffer", "buffer"], result: "i32" }, // int pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr)
  trylock: { name: "pthread_mutex_trylock", parameters: ["buffer"], result: "i32" }, // int pthread_mutex_trylock(pthread_mutex_t *mutex)
  lockOnThread: {
    name: "pthread_mutex_lock",
    parameters: ["buffer"],
    result: "i32",
    nonblocking: true,
  }, // int pthread_mutex_lock(pthread_mutex_t *mutex), on a thread of the runtime's pool
} as const satisfies Deno.ForeignLibraryInterface;

let opened: Deno.DynamicLibrary<typeof symbols>["symbols"] | undefined;

function threads(): Deno.DynamicLibrary<typeof symbols>["symbols"] {
  opened ??= Deno.dlopen("libc.so.6", symbols).symbols;
  return opened;
}

/** Makes a mutex of {@linkcode MUTEX_BYTES} bytes of shared memory. Throws an OsError if the host refuses. */
export function initRobustMutex(bytes: Uint8Array<ArrayBuffer>): void {
  const attributes = new Uint8Array(ATTRIBUTE_BYTES);
  const { attributeInit, setShared, setRobust, init } = threads();
  const error = attributeInit(attributes) || setShared(attributes, PTHREAD_PROCESS_SHARED) ||
    setRobust(attributes, PTHREAD_MUTEX_ROBUST) || init(bytes, attributes);
  if (error !== 0) throw new OsError("Cannot make a mutex", "pthread_mutex_init", error);
}

/**
 * Locks a mutex for the thread that calls, which never unlocks it. The memory must stay mapped for as long as the thread
 * lives: the thread's list of robust mutexes leads there.
 *
 * @returns Whether it is locked now: not if another thread has it.
 */
export function holdRobustMutex(bytes: Uint8Array<ArrayBuffer>): boolean {
  const error = threads().trylock(bytes);
  return error === 0 || error === EOWNERDEAD;
}

/**
 * Waits, on a thread of the runtime's pool, until the thread that holds a mutex has ended. That thread of the pool then
 * has the mutex, so the memory must stay mapped for good.
 *
 * @returns Whether the mutex was held and its thread has ended; otherwise nothing had held it.
 */
export async function robustMutexReleased(bytes: Uint8Array<ArrayBuffer>): Promise<boolean> {
  return await threads().lockOnThread(bytes) === EOWNERDEAD;
}

/** Whether the C library has what robust mutexes need. */
export function hasRobustMutexes(): boolean {
  try {
    libc();
    threads();
    return true;
  } catch {
    return false;
  }
}
