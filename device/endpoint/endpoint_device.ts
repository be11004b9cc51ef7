/** The interface of a device behind the IOMMU: a virtio device that serves its requests in small pieces. */
import type { Queue } from "../../vring/mod.ts";
import type { VirtioDevice } from "../virtio_device.ts";

/** Most bytes that a device moves before something else is served. */
export const PIECE_BYTES = 65536;

/** What a device has done since it was made. */
export class DmaCounters {
  /** Requests answered. */
  requests = 0;
  /** Bytes read from guest memory. */
  readBytes = 0;
  /** Bytes written to guest memory. */
  writtenBytes = 0;
}

/**
 * The state of the requests of a device that is being removed: some are still under way, all are done, or some can
 * never complete.
 */
export type Draining = "under way" | "drained" | "lost";

/** A virtio device whose requests are served in pieces. */
export interface EndpointDevice extends VirtioDevice {
  /** Short name of the type: `rng`, `blk`. */
  readonly type: string;
  /** What it has done. */
  readonly counters: DmaCounters;
  /** Called when work on another thread is done, so that the loop serves the queues again. */
  onProgress: () => void;

  /**
   * Serves a queue for about {@linkcode PIECE_BYTES}. Publishes used elements; the caller signals the driver.
   *
   * @returns whether there was anything to do.
   */
  serve(index: number, queue: Queue): boolean;

  /** Whether a request was taken from a queue and is not answered yet. */
  isBusy(index: number): boolean;

  /** Whether such a request could be continued now. */
  isReady(index: number): boolean;

  /**
   * Whether it would take nothing from a queue now, so that requests there need not be served yet; by default it
   * always would.
   */
  isStalled?(index: number): boolean;

  /**
   * Takes no further request from its queues, from the first call on: the device is being removed. Call it again while
   * the device is served.
   */
  drain(): Draining;

  /** Releases its resources. */
  close(): void;
}
