/**
 * What a device behind the IOMMU is to the loop that serves it: a virtio device that works in small pieces.
 *
 * @module
 */
import type { Queue } from "../../vring/mod.ts";
import type { VirtioDevice } from "../virtio_device.ts";

/** Bytes that a device moves at most before something else gets its turn. */
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
 * How far a device is that is about to be removed: what it has taken goes on, or is done, or some of it can no longer
 * end.
 */
export type Draining = "under way" | "drained" | "lost";

/** A virtio device whose requests are served in pieces. */
export interface EndpointDevice extends VirtioDevice {
  /** What it is, in a word: `rng`, `blk`. */
  readonly type: string;
  /** What it has done. */
  readonly counters: DmaCounters;
  /** Called when work that ran elsewhere is done, so that the loop serves the queues again. */
  onProgress: () => void;

  /**
   * Serves a queue for some {@linkcode PIECE_BYTES}. Answers are published, signals are the caller's.
   *
   * @returns whether there was anything to do.
   */
  serve(index: number, queue: Queue): boolean;

  /** Whether a request was taken from a queue and is not answered yet. */
  isBusy(index: number): boolean;

  /** Whether such a request could go on now. */
  isReady(index: number): boolean;

  /**
   * Whether it would take nothing from a queue now, so that requests there are no reason to come back; by default it
   * always would.
   */
  isStalled?(index: number): boolean;

  /**
   * Takes no further request from its queues, from the first call on: the device is about to be removed. To be called
   * again while it is served.
   */
  drain(): Draining;

  /** Gives back what it holds. */
  close(): void;
}
