/**
 * Makes the device that `serve` serves.
 *
 * @module
 */
import { type DeviceOptions, IommuDevice } from "../iommu/iommu_device.ts";
import type { Log } from "../log.ts";
import { warmUp } from "../serving/warm_up.ts";
import type { RingFeatures } from "../vhost_user/mod.ts";
import { UsageError } from "./errors.ts";

/**
 * The device that the options describe, warmed up and as new.
 *
 * @throws {UsageError} If the options contradict each other.
 */
export async function openDevice(
  options: DeviceOptions,
  rings: RingFeatures,
  log: Log,
): Promise<IommuDevice> {
  try {
    await prepare(options, rings, log);
    return new IommuDevice(options);
  } catch (error) {
    if (error instanceof RangeError) throw new UsageError(error.message);
    throw error;
  }
}

/** Warms up. That makes a guest's beginning quicker: where it fails, guests are served all the same. */
async function prepare(options: DeviceOptions, rings: RingFeatures, log: Log): Promise<void> {
  try {
    const begin = performance.now();
    const { requests } = await warmUp(options, rings);
    log.debug(`Rehearsed ${requests} requests in ${(performance.now() - begin).toFixed()} ms`);
  } catch (error) {
    if (error instanceof RangeError || !(error instanceof Error)) throw error;
    log.warn(`Cannot warm up, so a guest's first requests will be slow: ${error.message}`);
  }
}
