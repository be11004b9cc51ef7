/**
 * Work that is done in bounded pieces, with everything else served between them: a generator that yields after each.
 */

/** How much a piece is: as many mappings read, written or made. */
export const PIECE_WORK = 512;
/** Pieces of a job that are done at once; the rest follows. */
const PIECES_AT_ONCE = 4;

/** Gives a result after the last piece. */
export type Pieces<T> = Generator<void, T, void>;

/** Does all pieces at once. */
export function finish<T>(pieces: Pieces<T>): T {
  for (;;) {
    const { done, value } = pieces.next();
    if (done) return value;
  }
}

/** Work in pieces that is under way, of which there is one at a time. */
export class Job {
  /** Does a piece, and returns whether it was the last. */
  #step: (() => boolean) | undefined;
  #isRebuild = false;

  /** Whether there is a piece for {@linkcode step} to do. */
  get isUnderWay(): boolean {
    return this.#step !== undefined;
  }

  /** Whether what is under way builds what a guest has mapped. */
  get isRebuild(): boolean {
    return this.#isRebuild && this.isUnderWay;
  }

  /** Does the first pieces. `done` is called after the last one, perhaps at once. */
  begin<T>(pieces: Pieces<T>, done: (result: T) => void, isRebuild = false): void {
    this.#isRebuild = isRebuild;
    this.#step = () => {
      const step = pieces.next();
      if (!step.done) return false;
      done(step.value);
      return true;
    };
    for (let i = 0; i < PIECES_AT_ONCE && this.isUnderWay; i++) this.step();
  }

  /** Does a piece. */
  step(): void {
    if (this.#step?.()) this.#step = undefined;
  }

  /** Does no further piece. */
  abandon(): void {
    this.#step = undefined;
  }
}
