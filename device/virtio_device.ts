/**
 * The interface of a device for a vhost-user back end.
 *
 * Feature bits come in two halves: `low` holds bits 0–31, `high` bits 32–63. Byte addresses are guest-physical.
 */
import type { GuestMemory, MemoryRegion, PositionRecord, Queue } from "../vring/mod.ts";

/** Why something is refused, in one line of text; nothing if it is not. */
export type Refusal = string | undefined;

/**
 * Kind of reset. `device`: the driver or the front end asked for it (virtio 1.4 §2.4). `system`: the guest machine
 * restarted, or it has ended and another may follow. `doubtful`: either that, or the same guest continues and has sent
 * no request so far.
 */
export type ResetKind = "device" | "system" | "doubtful";

/**
 * What the start of a queue indicates about the guest, if the session has not said so otherwise. `new`: the queue
 * starts at its beginning, after the configuration was read, as a driver does that has just been loaded. `unused`: it
 * starts at its beginning, and the configuration was not read. `used`: it starts elsewhere, or its contents show that
 * it was used before, so the guest continues. `loaded`: a state was loaded, with which the guest continues.
 */
export type StartSign = "new" | "unused" | "used" | "loaded";

/** A device's answer to the start of a queue, one line each. */
export interface StartVerdict {
  /** Why the queue cannot run. */
  readonly refusal?: string;
  /** What the guest loses. */
  readonly warning?: string;
  /**
   * Whether the queue cannot run yet: work in pieces has begun that must end first. Messages wait for it
   * ({@linkcode VirtioDevice.messagesWait}); then the device is asked again.
   */
  readonly isLater?: boolean;
}

/** A virtio device without its transport. None of its methods throws because of what a guest or peer did. */
export interface VirtioDevice {
  /** Virtio device id (§5): 23 for an IOMMU. */
  readonly deviceId: number;
  /** Device feature bits 0–31 on offer, without the transport's (24–31). */
  readonly featuresLow: number;
  /** Feature bits 32–63 on offer, without the transport's (32–41). */
  readonly featuresHigh: number;
  /** Number of virtqueues. */
  readonly queueCount: number;
  /** Most entries of a queue, at most 32768. */
  readonly queueSizeMax: number;
  /** Size of the config space in bytes. */
  readonly configSize: number;

  /**
   * Whether work is under way that a message must not interrupt: messages wait, and everything else is served
   * meanwhile.
   */
  readonly messagesWait?: boolean;

  /** Fills `target` from the config space at `offset`; the range lies within `configSize`. */
  readConfig(target: Uint8Array, offset: number): void;

  /**
   * The front end passes a write to the config space; the range lies within `configSize`. Only bytes that the driver
   * may write are used: some front ends write the whole space.
   */
  writeConfig(bytes: Uint8Array, offset: number): void;

  /** The features that the driver has accepted, transport bits included. */
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
   * Whether a translation that the device has handed out still leads to a region that was just removed: then its memory
   * has to stay mapped, and no message may be served, until `released` is called.
   */
  keepsMemory?(region: MemoryRegion, released: () => void): boolean;

  /** The device starts over. Queues stay as announced: their stops and starts are told separately. */
  reset(kind: ResetKind): void;

  /**
   * A queue is about to run for the first time in a session, or since a state was loaded in it. A device that keeps
   * state for its guest has this method, and {@linkcode disconnected}.
   */
  queueBegins?(index: number, sign: StartSign): StartVerdict | undefined;

  /**
   * The session has ended; its queues are stopped and its memory is removed. That is no reset of the guest, which may
   * continue with another session. A device without this method keeps no state, and is reset.
   *
   * @returns nothing, or one line to be logged.
   */
  disconnected?(): string | undefined;

  /**
   * A queue runs from now on.
   *
   * @param goesOn Whether it goes on where an earlier process ended, as {@linkcode queueRecord} says; default false.
   */
  queueStarted(index: number, queue: Queue, goesOn?: boolean): void;

  /** Where the position of a queue is recorded; nothing if the device is not to survive the end of its process. */
  queueRecord?(index: number): PositionRecord | undefined;

  /** The session is about to end. Requests under way need no answer, and must not delay the end. */
  sessionEnds?(): void;

  /**
   * A queue stops now; after this call it is released. Chains taken and not completed are lost to the driver.
   * A queue whose ring loses its memory is not stopped: it is not served until the memory is back, and then continues.
   */
  queueStopped(index: number): void;

  /** Most bytes of a saved state; set by a device that can be saved. */
  readonly stateSizeMax?: number;

  /** The whole device as bytes, to be loaded elsewhere; a device without it cannot migrate. */
  saveState?(): Uint8Array;

  /**
   * Becomes the device that was saved.
   *
   * @returns why the bytes are no state or do not fit; then the device is unchanged.
   */
  loadState?(bytes: Uint8Array): Refusal;

  /** As {@linkcode saveState}, in pieces: messages wait until `done` is called, perhaps at once. */
  beginSave?(done: (bytes: Uint8Array) => void): void;

  /** As {@linkcode loadState}, in pieces: messages wait until `done` is called, perhaps at once. */
  beginLoad?(bytes: Uint8Array, done: (refusal: Refusal) => void): void;
}
