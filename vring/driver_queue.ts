/**
 * The driver's side of a virtqueue, whatever its layout: what a guest's driver does.
 *
 * Tests, benches, the demo and the vhost-user front end drive a device with it. It owns a ring at a
 * given place in memory, makes buffers available there and collects them again. The buffers' memory is
 * the caller's.
 *
 * 1. `begin`, then `addReadable` and `addWritable` for each buffer, then `commit`: a chain, and a token
 *    that names it.
 * 2. `kick` shows the device everything committed and says whether it wants to be notified.
 * 3. `reap` finds a buffer that the device has used: its `token` and `usedLength`.
 *
 * Addresses and lengths are bytes. Nothing here allocates after construction.
 */

import type { AddressSpace } from "./address_space.ts";

/** Where a driver's ring goes and what has been negotiated for it. */
export interface DriverQueueSetup {
  /** What the ring's address means for the driver: the guest's own memory. */
  readonly space: AddressSpace;
  /** First byte of the ring, a multiple of 16. It takes {@linkcode DriverQueue.byteLength} bytes. */
  readonly address: number;
  /** Entries: a power of two from 1 to 32768 (split), any number from 1 to 32768 (packed). */
  readonly size: number;
  /** VIRTIO_F_EVENT_IDX (29); default false. */
  readonly eventIndex?: boolean;
  /** VIRTIO_F_INDIRECT_DESC (28): makes room for indirect tables; default false. */
  readonly indirect?: boolean;
  /** Descriptors in each indirect table; default 8. */
  readonly indirectLength?: number;
  /** VIRTIO_F_IN_ORDER (35); default false. */
  readonly inOrder?: boolean;
}

/** The driver's side of one virtqueue. */
export interface DriverQueue {
  /** Entries. */
  readonly size: number;
  /** Address of the descriptor table (split) or descriptor ring (packed). */
  readonly descriptors: number;
  /** Address of the available ring (split) or driver event suppression (packed). */
  readonly driverArea: number;
  /** Address of the used ring (split) or device event suppression (packed). */
  readonly deviceArea: number;
  /** Bytes of ring and indirect tables together, from the setup's address on. */
  readonly byteLength: number;
  /** Descriptors not in use. */
  readonly free: number;
  /** Chains committed and not yet reaped. */
  readonly inFlight: number;
  /** The chain that {@linkcode DriverQueue.reap} found last. */
  readonly token: number;
  /** Bytes the device says it wrote into it. */
  readonly usedLength: number;

  /** Begins a chain. */
  begin(): void;

  /** Adds a device-readable buffer to the chain begun. */
  addReadable(address: number, length: number): void;

  /** Adds a device-writable buffer to the chain begun. */
  addWritable(address: number, length: number): void;

  /**
   * Writes the chain begun into the ring. The device sees it with the next
   * {@linkcode DriverQueue.kick}.
   *
   * @param indirect Whether to use an indirect table; default where the queue has them and the chain
   * has two buffers or more.
   * @returns The chain's token, or -1 if there is no room; then nothing has changed and the chain may
   * be committed later.
   */
  commit(indirect?: boolean): number;

  /**
   * Shows the device everything committed.
   *
   * @returns Whether the device wants a notification for it.
   */
  kick(): boolean;

  /** Takes back the next used chain, if there is one: see `token` and `usedLength`. */
  reap(): boolean;

  /**
   * Asks the device to signal used chains.
   *
   * @returns Whether some are there already: reap them before sleeping.
   */
  enableSignals(): boolean;

  /** Tells the device that the driver looks by itself. */
  disableSignals(): void;
}
