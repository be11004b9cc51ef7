/**
 * What a vhost-user back end needs of the device behind it, whatever the device does.
 *
 * Feature bits come as two halves: `low` holds bits 0–31, `high` bits 32–63. Byte addresses are
 * guest-physical.
 *
 * @module
 */
import type { GuestMemory, MemoryRegion, Queue } from "../vring/mod.ts";

/** Why something is refused, in one line of text; nothing if it is not. */
export type Refusal = string | undefined;

/**
 * What was reset. `device`: the driver or the front end asked for it (virtio 1.4 §2.4). `system`: the guest
 * machine restarted, or it is gone and another may come. `doubtful`: that may be, or the same guest goes on, which has
 * asked for nothing so far.
 */
export type ResetKind = "device" | "system" | "doubtful";

/**
 * What the start of a queue says about the guest, where the session has not told it otherwise. `new`: the queue
 * starts at its beginning, after the configuration was read, as a driver does that has just come. `unused`: it starts
 * at its beginning, and the configuration was not read. `used`: it starts elsewhere, or what is in it shows that it was
 * used before, so the guest goes on. `loaded`:
 * a state was loaded, with which the guest goes on.
 */
export type StartSign = "new" | "unused" | "used" | "loaded";

/** What a device says to the start of a queue, one line each. */
export interface StartVerdict {
  /** Why the queue cannot run. */
  readonly refusal?: string;
  /** What the guest has to do without. */
  readonly warning?: string;
  /**
   * Whether the queue cannot run yet: something has begun that comes first, in pieces. Messages wait for it, see
   * {@linkcode VirtioDevice.messagesWait}; then the device is asked again.
   */
  readonly isLater?: boolean;
}

/** A virtio device, transport left out. None of its methods throws because of what a guest or peer did. */
export interface VirtioDevice {
  /** Virtio device id (§5): 23 for an IOMMU. */
  readonly deviceId: number;
  /** Device feature bits 0–31 on offer, without the transport's (24–31). */
  readonly featuresLow: number;
  /** Feature bits 32–63 on offer, without the transport's (32–41). */
  readonly featuresHigh: number;
  /** How many virtqueues there are. */
  readonly queueCount: number;
  /** Most entries that a queue may have, at most 32768. */
  readonly queueSizeMax: number;
  /** Size of the config space in bytes. */
  readonly configSize: number;

  /**
   * While this is true the device is in the middle of something that a message must not cut short: messages wait, and
   * everything else is served meanwhile.
   */
  readonly messagesWait?: boolean;

  /** Fills `target` from the config space at `offset`; the range lies within `configSize`. */
  readConfig(target: Uint8Array, offset: number): void;

  /**
   * The front end passes on a write to the config space; the range lies within `configSize`. Only bytes that
   * the driver may write count: some front ends write the whole space.
   */
  writeConfig(bytes: Uint8Array, offset: number): void;

  /** The driver's choice among the features on offer, transport bits included. */
  featuresAgreed(low: number, high: number): void;

  /**
   * Guest memory, for a device that looks into it on its own. The transport keeps its regions here then: one is added
   * before {@linkcode VirtioDevice.memoryAdded} is called, and removed before {@linkcode VirtioDevice.memoryRemoved}.
   */
  readonly memory?: GuestMemory;

  /** Guest memory was added. */
  memoryAdded(region: MemoryRegion): void;

  /**
   * Guest memory was removed; it is unmapped when this returns, unless
   * {@linkcode VirtioDevice.keepsMemory} says otherwise. Nothing may keep a view of it.
   */
  memoryRemoved(region: MemoryRegion): void;

  /**
   * Whether something that the device has handed out still leads to a region that it was just told has gone: then its
   * memory has to stay where it is, and no message may be served, until `released` is called.
   */
  keepsMemory?(region: MemoryRegion, released: () => void): boolean;

  /** The device starts over. Queues stay as announced: their stops and starts are told separately. */
  reset(kind: ResetKind): void;

  /**
   * A queue is about to run for the first time in a session, or since a state was loaded in it. A device that keeps
   * something for its guest has this method, and {@linkcode disconnected}.
   */
  queueBegins?(index: number, sign: StartSign): StartVerdict | undefined;

  /**
   * The session has ended; its queues have stopped and its memory is gone. That is no reset of the guest, which may
   * go on with another session. A device without this method has nothing to keep, and is reset.
   *
   * @returns nothing, or one line to be logged.
   */
  disconnected?(): string | undefined;

  /** A queue runs from now on. */
  queueStarted(index: number, queue: Queue): void;

  /** The session is about to end. What the device is in the middle of needs no answer, and must not delay the end. */
  sessionEnds?(): void;

  /**
   * A queue stops now; after this call it is released. Chains taken and not completed are lost to the driver.
   * One whose ring loses its memory is not stopped: it is not served until the memory is back, and then goes on.
   */
  queueStopped(index: number): void;

  /** Most bytes that a state of it has; a device that can be saved says so. */
  readonly stateSizeMax?: number;

  /** The whole device as bytes, to be loaded elsewhere; a device without it cannot migrate. */
  saveState?(): Uint8Array;

  /**
   * Becomes the device that was saved.
   *
   * @returns nothing, or one line that says why the bytes are no state or do not fit; then the device is as it was.
   */
  loadState?(bytes: Uint8Array): Refusal;

  /** As {@linkcode saveState}, in pieces: messages wait until `done` is called, perhaps at once. */
  beginSave?(done: (bytes: Uint8Array) => void): void;

  /** As {@linkcode loadState}, in pieces: messages wait until `done` is called, perhaps at once. */
  beginLoad?(bytes: Uint8Array, done: (refusal: Refusal) => void): void;
}
