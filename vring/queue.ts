/**
 * The device's side of a virtqueue, whatever its layout (2.6).
 *
 * Both layouts have the same few methods, and a device's loop is written against them. Each
 * method works on numbers and allocates nothing, so that V8 can inline it: with one layout in use a
 * call costs no more than a direct one, with both a comparison more.
 */

import type { Chain } from "./chain.ts";
import type { DirtyLog } from "./dirty_log.ts";
import type { PositionRecord } from "./position_record.ts";
import type { RingError } from "./ring_error.ts";

/** Where a ring is and what has been negotiated for it. Addresses are bytes, in the queue's space. */
export interface QueueSetup {
  /** Entries: a power of two from 1 to 32768 (split), any number from 1 to 32768 (packed). */
  readonly size: number;
  /** Descriptor table (split, aligned to 16) or descriptor ring (packed, 16). */
  readonly descriptors: number;
  /** Available ring (split, 2) or driver event suppression (packed, 4). */
  readonly driverArea: number;
  /** Used ring (split, 4) or device event suppression (packed, 4). */
  readonly deviceArea: number;
  /** VIRTIO_F_EVENT_IDX (29); default false. */
  readonly eventIndex?: boolean;
  /** VIRTIO_F_INDIRECT_DESC (28); default false. */
  readonly indirect?: boolean;
  /** VIRTIO_F_IN_ORDER (35); default false. */
  readonly inOrder?: boolean;
  /**
   * Where to begin, as {@linkcode Queue.base} gave it; default a fresh ring. Split: the next available
   * index; the used index is read from the ring. Packed: see `packed_queue.ts`.
   */
  readonly base?: number;
  /**
   * The queue's region of the memory that outlives this process (vhost-user, "Inflight I/O tracking");
   * default none. Chains that an earlier process left in flight come first out of {@linkcode
   * Queue.next}, and the base then follows from the record. The region's buffer must not be detached
   * before the queue is released or configured anew.
   */
  readonly inflight?: Uint8Array | null;
  /**
   * Where the queue stands, in memory that outlives this process; default none. With it, chains are used in the order in
   * which they were taken, each is shown to the driver by itself, and {@linkcode Chain.position} names it.
   */
  readonly record?: PositionRecord | null;
  /**
   * Whether an earlier process ended while the queue ran, and this one goes on where `record` says that it stood; default
   * false: it begins at `base`. The ring must be the same one.
   */
  readonly goesOn?: boolean;
}

/** The device's side of one virtqueue. */
export interface Queue {
  /** Entries, 0 before the first configuration. */
  readonly size: number;
  /** Whether the queue is configured and nothing has been found wrong with it. */
  readonly ready: boolean;
  /** What was found wrong; stays until the next configuration, release or {@linkcode Queue.reattach}. */
  readonly error: RingError;
  /**
   * Where another device would have to go on, at the first chain that is not published; stays readable after an
   * error or a release.
   */
  readonly base: number;
  /**
   * Whether the last configuration found a ring that has never been used, and nothing was published since: it begins
   * at the beginning, and what is in it, or in the record of chains in flight, does not say otherwise. Stays readable
   * after a release. A ring that comes round to its beginning may
   * look like one: a split one after 65536 chains, a packed one while all of it is available.
   */
  readonly isUnused: boolean;

  /**
   * Attaches to a ring, also after another one: a reset or restart.
   *
   * @returns 0, or why it cannot be used.
   */
  configure(setup: QueueSetup): RingError;

  /** Detaches from the ring: it is not accessed any more. */
  release(): void;

  /**
   * Looks for the ring again where it was, after `RING_MEMORY` or `RING_INDIRECT_MEMORY`. The queue goes on as
   * though the memory had never been away: chains taken stay taken, what was completed meanwhile can be
   * published, and is if {@linkcode Queue.publish} was called. Then the driver may want a signal.
   *
   * @returns 0, or why the ring still cannot be used.
   */
  reattach(): RingError;

  /** Whether there is something for {@linkcode Queue.next}: one look at one 16-bit word. */
  hasWork(): boolean;

  /**
   * Takes the next chain that the driver made available.
   *
   * @param chain Is filled with it.
   * @returns Whether there was one. If not, look at {@linkcode Queue.error}.
   */
  next(chain: Chain): boolean;

  /**
   * Gives a chain back, after its last write. Nothing is written into the ring before the next
   * {@linkcode Queue.publish}, so an answer may be held for as long as it takes.
   *
   * @param usedLength Bytes written into its writable part, from the first on (2.7.8.2).
   */
  complete(chain: Chain, usedLength: number): void;

  /** Shows the driver everything completed so far; if the ring is not in memory, once it is found again. */
  publish(): void;

  /**
   * Whether the driver wants a signal for what was published since the last call (2.7.7.1, 2.7.10,
   * 2.8.14). Call once after publishing.
   */
  needsSignal(): boolean;

  /**
   * Asks the driver to notify the device of new chains.
   *
   * @returns Whether chains are there already: do not sleep but take them.
   */
  enableNotifications(): boolean;

  /** Tells the driver that the device looks by itself. A hint: notifications may still come. */
  disableNotifications(): void;

  /**
   * Logs the device's writes to its part of the ring (VHOST_VRING_F_LOG), from now on and through
   * reconfigurations. A packed ring's descriptors are logged where they lie.
   *
   * @param address Address in the queue's space that stands for the first byte of the part.
   */
  logWrites(log: DirtyLog | null, address: number): void;

  /** Logs everything that the device writes in the ring as written: an earlier process may have ended before it did so. */
  logAll(): void;

  /** The error in one line for a log; empty if there is none. */
  describeError(): string;
}
