/**
 * Puts this thread where a test wants it.
 *
 * @module
 */
import { ProcessorSet } from "../../../device/host/mod.ts";
import { allowedProcessors, restrictTo } from "../../../device/host/processors.ts";

/** The set of one processor. */
export function only(processor: number): ProcessorSet {
  const set = new ProcessorSet();
  set.add(processor);
  return set;
}

/** Puts this thread on a processor, from where the kernel may take it away again. */
export function sitOn(processor: number): void {
  const all = allowedProcessors();
  restrictTo(only(processor));
  restrictTo(all);
}
