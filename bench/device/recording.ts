/**
 * A recorded device for the benches of requests: its records are taken as the thread that writes a file would take them, and
 * dropped.
 *
 * @module
 */
import { configurationText } from "../../device/recording/configuration.ts";
import { RecordBuffer } from "../../device/recording/record_buffer.ts";
import { RecordedDevice } from "../../device/recording/recorded_device.ts";
import { Recorder } from "../../device/recording/recorder.ts";
import type { DeviceOptions, IommuDevice } from "../../device/iommu/iommu_device.ts";

/** A device whose life is recorded, and what takes the records. */
export class RecordedBench {
  readonly #buffer = new RecordBuffer();

  /** Makes the device. */
  make(options: DeviceOptions): IommuDevice {
    const head = { program: "0.0.0", began: 0, dma: false };
    const recorder = new Recorder(this.#buffer, configurationText(head, options), 0);
    return new RecordedDevice(options, recorder, false);
  }

  /** Takes everything. Throws an Error if the recording is over. */
  drain(): void {
    while (this.#buffer.take() !== undefined) this.#buffer.written();
    if (this.#buffer.over !== undefined) throw new Error("Cannot go on: the recording is over");
  }
}
