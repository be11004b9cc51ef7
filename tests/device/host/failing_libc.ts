/**
 * The C library with calls that fail when a test says so, as a host's would: the error is in `errno`, and what the call
 * would have done is not done. (But `close(2)`, which has always closed when it returns.)
 *
 * A plan lies in shared memory, so that another thread can make it.
 *
 * @module
 */
import { type Libc, libc, replaceLibc } from "../../../device/host/libc.ts";
import { MAP_FAILED } from "../../../device/host/constants.ts";

const CALL = 0;
const ERROR = 1;
const LEFT = 2;
const HITS = 3;

/** Calls that cannot fail, or whose failure is none of the host's. */
const NEVER_FAIL: readonly string[] = ["errnoLocation", "getpagesize"];

/** The calls that can fail, by name. */
export const CALLS: readonly string[] = Object.keys(libc()).filter((name) =>
  !NEVER_FAIL.includes(name)
).sort();

/** Which call fails, how, and how often. */
export class FailurePlan {
  /** To be given to another thread. */
  readonly words: Int32Array<SharedArrayBuffer>;

  /** A plan of this thread, or of another one. */
  constructor(words: Int32Array<SharedArrayBuffer> = new Int32Array(new SharedArrayBuffer(16))) {
    this.words = words;
  }

  /** Makes the next calls fail. */
  fail(call: string, error: number, times: number): void {
    const index = CALLS.indexOf(call);
    if (index < 0) throw new Error(`There is no call ${call} that can fail`);
    Atomics.store(this.words, LEFT, 0);
    Atomics.store(this.words, CALL, index);
    Atomics.store(this.words, ERROR, error);
    Atomics.store(this.words, HITS, 0);
    Atomics.store(this.words, LEFT, times);
  }

  /** Makes no further call fail. Returns how many calls did. */
  end(): number {
    Atomics.store(this.words, LEFT, 0);
    return this.hits;
  }

  /** How many calls have failed. */
  get hits(): number {
    return Atomics.load(this.words, HITS);
  }

  /** The error that a call is to fail with now, or 0. */
  take(index: number): number {
    const { words } = this;
    if (words[LEFT] <= 0 || words[CALL] !== index) return 0;
    words[LEFT]--;
    words[HITS]++;
    return words[ERROR];
  }
}

type Call = (...args: unknown[]) => unknown;

/** Has this thread's calls fail as a plan says, until disposed of. */
export function failAsPlanned(plan: FailurePlan): Disposable {
  const real = libc() as unknown as Record<string, Call>;
  const cell = libc().errnoLocation();
  if (cell === null) throw new Error("Cannot find errno");
  const errno = new Int32Array(Deno.UnsafePointerView.getArrayBuffer(cell, 4));
  const failing: Record<string, Call> = { ...real };
  CALLS.forEach((name, index) => {
    const isOnThread = name.endsWith("OnThread");
    failing[name] = (...args) => {
      const error = plan.take(index);
      if (error === 0) return real[name](...args);
      if (isOnThread) {
        if (name === "closeOnThread") real.close(...args);
        return Promise.resolve(-1);
      }
      if (name === "close") real.close(...args);
      errno[0] = error;
      if (name === "mmap") return Deno.UnsafePointer.create(MAP_FAILED);
      return name === "lseek" ? -1n : -1;
    };
  });
  replaceLibc(failing as unknown as Libc);
  return { [Symbol.dispose]: () => replaceLibc(undefined) };
}
