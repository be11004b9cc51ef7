/**
 * The packed ring's event suppression structure, as one 32-bit word (2.8.10, 2.8.14).
 *
 * Bits 0–14 name a slot, bit 15 the wrap counter with which it counts, bits 16–17 say what is wanted.
 */

/** Event suppression flags, in the upper half of the word (2.8.10). */
export const EVENT_ENABLE = 0;
/** No events. */
export const EVENT_DISABLE = 1 << 16;
/** An event for one descriptor, named by slot and wrap counter in the lower half. */
export const EVENT_DESCRIPTOR = 2 << 16;
/** The flags in an event suppression word. */
export const EVENT_FLAGS = 3 << 16;

/**
 * Whether the descriptor that an event suppression word names is among the slots just passed. Positions
 * are counted in two laps, of which the wrap counter says which (2.8.10).
 *
 * @param event The word: slot and wrap counter in its lower half.
 * @param slot Slot behind the last one passed.
 */
export function isPassed(
  event: number,
  slot: number,
  wrap: number,
  passed: number,
  size: number,
): boolean {
  const named = (event & 0x7fff) + ((event & 0x8000) === 0 ? size : 0);
  const behind = slot + (wrap === 0 ? size : 0);
  const distance = behind - named - 1;
  return (distance < 0 ? distance + 2 * size : distance) < passed;
}
