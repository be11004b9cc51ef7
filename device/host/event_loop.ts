import { setImmediate } from "node:timers";

/** Lets the event loop turn once. `setTimeout` would take a millisecond, in which the rings are not looked at. */
export function eventLoopTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
