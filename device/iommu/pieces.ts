/**
 * Work that is done in bounded pieces, with everything else served between them: a generator that yields behind each.
 *
 * @module
 */

/** How much a piece is: as many mappings read, written or made. */
export const PIECE_WORK = 512;

/** Gives a result behind the last piece. */
export type Pieces<T> = Generator<void, T, void>;

/** Does all pieces at once. */
export function finish<T>(pieces: Pieces<T>): T {
  for (;;) {
    const { done, value } = pieces.next();
    if (done) return value;
  }
}
