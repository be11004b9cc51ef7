/**
 * Ends a process at a chosen point without ending one: methods of real classes are wrapped, and before or after one of their calls
 * an exception flies. Whatever outlives the process is what a test keeps; it drops everything else.
 *
 * @module
 */

/** The end of the process. */
export class Crash extends Error {}

type Method = (this: unknown, ...args: unknown[]) => unknown;

/** A class and the names of its methods that are wrapped. */
export type Wrapped = readonly [prototype: object, ...names: string[]];

/** The points of all wrapped methods: two for each call, one before it and one after it. */
export class CrashPoints implements Disposable {
  /** Points passed since {@linkcode arm}. */
  passed = 0;
  /** The point at which it ended last. */
  where = "";
  #at = Infinity;
  readonly #undo: (() => void)[] = [];

  /** Wraps the methods until it is disposed of. */
  constructor(...classes: readonly Wrapped[]) {
    for (const [prototype, ...names] of classes) {
      for (const name of names) this.#wrap(prototype, name);
    }
  }

  /** The process ends at the `at`-th point from now on, counted from 0; never by default. */
  arm(at = Infinity): void {
    this.passed = 0;
    this.#at = at;
  }

  /** Does something. Returns whether the process ended meanwhile; it is not armed afterwards. */
  ends(action: () => void): boolean {
    try {
      action();
      return false;
    } catch (error) {
      if (!(error instanceof Crash)) throw error;
      return true;
    } finally {
      this.#at = Infinity;
    }
  }

  [Symbol.dispose](): void {
    for (const undo of this.#undo) undo();
  }

  #wrap(prototype: object, name: string): void {
    const methods = prototype as Record<string, Method>;
    const original = methods[name];
    if (typeof original !== "function") throw new Error(`There is no method ${name}`);
    const isOwn = Object.hasOwn(methods, name);
    const pass = (point: string) => this.#pass(point);
    methods[name] = function (this: unknown, ...args: unknown[]): unknown {
      pass(`before ${name}`);
      const result = original.apply(this, args);
      pass(`after ${name}`);
      return result;
    };
    this.#undo.push(() => {
      if (isOwn) methods[name] = original;
      else delete methods[name];
    });
  }

  #pass(point: string): void {
    if (this.passed++ !== this.#at) return;
    this.where = point;
    throw new Crash(point);
  }
}
