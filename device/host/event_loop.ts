import { setImmediate } from "node:timers";

/** Waits for one turn of the event loop. `setTimeout` would take a millisecond, in which the rings are not looked at. */
export function eventLoopTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
