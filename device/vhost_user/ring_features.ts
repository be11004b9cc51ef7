/**
 * The features that shape a ring, by their names: the user of a back end chooses which of them it offers, since
 * front ends pass the offer on to the guest unchanged.
 */
import { TransportFeature } from "./protocol.ts";

/** Ring features, as masks of bits 31:0 and 63:32. */
export interface RingFeatures {
  /** Bits 31:0. */
  readonly low: number;
  /** Bits 63:32. */
  readonly high: number;
}

/** Each feature by the name that the command line has for it (virtio 1.4, 6). */
const BY_NAME: Readonly<Record<string, RingFeatures>> = {
  "packed": { low: 0, high: TransportFeature.RING_PACKED },
  "in-order": { low: 0, high: TransportFeature.IN_ORDER },
  "indirect": { low: TransportFeature.INDIRECT_DESC, high: 0 },
  "event-index": { low: TransportFeature.EVENT_IDX, high: 0 },
  "notification-data": { low: 0, high: TransportFeature.NOTIFICATION_DATA },
};

/** The names there are. */
export const RING_FEATURE_NAMES: readonly string[] = Object.keys(BY_NAME);

/** All of them. */
export const ALL_RING_FEATURES: RingFeatures = ringFeatures(RING_FEATURE_NAMES)!;

/** The features of a list of names; `undefined` if one of them does not exist. */
export function ringFeatures(names: readonly string[]): RingFeatures | undefined {
  let low = 0;
  let high = 0;
  for (const name of names) {
    if (!Object.hasOwn(BY_NAME, name)) return undefined;
    low |= BY_NAME[name].low;
    high |= BY_NAME[name].high;
  }
  return { low, high };
}
