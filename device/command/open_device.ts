/** Makes the device that `serve` serves, and prepares the process for its first guest. */
import { type DeviceOptions, IommuDevice } from "../iommu/iommu_device.ts";
import type { Log } from "../log.ts";
import { warmUp } from "../serving/warm_up.ts";
import type { RingFeatures } from "../vhost_user/mod.ts";
import { UsageError } from "./errors.ts";

/**
 * The device that the options describe.
 *
 * @throws {UsageError} If the options contradict each other.
 */
export function makeDevice(options: DeviceOptions): IommuDevice {
  return asUsageError(() => new IommuDevice(options));
}

/**
 * Does something with options that may contradict each other.
 *
 * @throws {UsageError} If they do.
 */
export function asUsageError<T>(make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (error instanceof RangeError) throw new UsageError(error.message);
    throw error;
  }
}

/** Warms up. That makes a guest's beginning quicker: where it fails, guests are served all the same. */
export async function prepare(
  options: DeviceOptions,
  rings: RingFeatures,
  log: Log,
): Promise<void> {
  try {
    const begin = performance.now();
    const { requests } = await warmUp(options, rings);
    log.debug(`Warmed up with ${requests} requests in ${(performance.now() - begin).toFixed()} ms`);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    log.warn(`Cannot warm up, so a guest's first requests will be slow: ${error.message}`);
  }
}
