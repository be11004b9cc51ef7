/**
 * The transfer of a device's state (SET_DEVICE_STATE_FD, CHECK_DEVICE_STATE): bytes through a pipe or
 * socket of the front end's, whose end is the end of the stream.
 *
 * Neither direction waits: {@linkcode StateTransfer.progress} moves what can be moved now, however the front
 * end has set up the descriptor. One in which nothing moves for a minute has failed.
 */
import {
  type Descriptor,
  isPipe,
  isUnixStream,
  POLLIN,
  POLLOUT,
  readNow,
  WOULD_BLOCK,
  writeNow,
} from "../host/mod.ts";

/** Bytes moved at once. */
const PIECE = 65536;
/** Milliseconds within which something has to move. */
const STALLED_MS = 60_000;
/** Pieces moved in one call: a peer may fill a pipe as quickly as it is emptied. */
const PIECES_AT_ONCE = 8;

/** What is saved or loaded. Each method calls `done` at its end, perhaps at once. */
export interface Stateful {
  /** Most bytes that a state may have. */
  readonly stateSizeMax: number;
  /** Saves the state. */
  saveState(done: (bytes: Uint8Array) => void): void;
  /** Loads a state, or returns one line that says why not. */
  loadState(bytes: Uint8Array, done: (error: string | undefined) => void): void;
}

/** One transfer, until it has succeeded or failed. */
export class StateTransfer {
  /** What is wrong, if the transfer has failed. */
  error: string | undefined;
  /** Whether more could have been moved: messages wait until all that is there has been. */
  isMoving = false;

  readonly #descriptor: Descriptor;
  /** What takes over the state that comes, or `undefined` while sending. */
  readonly #taker: Stateful | undefined;
  /** The state to send, once it is there. */
  #outgoing: Uint8Array | undefined;
  #sent = 0;
  /** What has come, in memory that grows in place. */
  readonly #incoming: ArrayBuffer;
  #received = 0;
  readonly #piece = new Uint8Array(new ArrayBuffer(PIECE));
  /** Bytes that had moved when it was last looked whether any do. */
  #moved = 0;
  readonly #patience: number;
  readonly #watch: ReturnType<typeof setInterval>;

  private constructor(descriptor: Descriptor, taker: Stateful | undefined, patience: number) {
    descriptor.setNonblocking();
    this.#patience = patience;
    this.#watch = setInterval(() => this.#checkMotion(), patience);
    this.#descriptor = descriptor;
    this.#taker = taker;
    this.#incoming = new ArrayBuffer(0, { maxByteLength: taker?.stateSizeMax ?? 0 });
  }

  /**
   * Begins to send a device's state. The descriptor, a pipe or socket, is closed at the end.
   *
   * @param patience Milliseconds within which something has to move.
   */
  static save(
    descriptor: Descriptor,
    source: Stateful,
    patience: number = STALLED_MS,
  ): StateTransfer {
    const transfer = new StateTransfer(descriptor, undefined, patience);
    source.saveState((bytes) => transfer.#outgoing = bytes);
    return transfer;
  }

  /** Begins to receive a device's state, which is handed on once it is complete. */
  static load(
    descriptor: Descriptor,
    taker: Stateful,
    patience: number = STALLED_MS,
  ): StateTransfer {
    return new StateTransfer(descriptor, taker, patience);
  }

  /** Whether a state can travel through a descriptor: a pipe, or a unix socket. */
  static accepts(descriptor: Descriptor): boolean {
    return isPipe(descriptor) || isUnixStream(descriptor);
  }

  /** The descriptor to poll, -1 once the transfer has ended. */
  get descriptor(): number {
    return this.#descriptor.number;
  }

  /** What to poll it for. */
  get events(): number {
    return this.#taker === undefined ? POLLOUT : POLLIN;
  }

  /** Moves what can be moved now. */
  progress(): void {
    this.isMoving = false;
    if (!this.#descriptor.isOpen) return;
    if (this.#taker !== undefined) this.#receive(this.#taker);
    else if (this.#outgoing !== undefined) this.#send(this.#outgoing);
  }

  /** Ends the transfer; one that was not complete has failed. */
  close(): void {
    if (!this.#descriptor.isOpen) return;
    this.#end();
    this.error = "the transfer was not complete";
  }

  /**
   * The device was reset: a state on its way in, or one that has come, is not the device's any more. What is on its way
   * out is of before, and goes on.
   */
  deviceReset(): void {
    if (this.#outgoing !== undefined) return;
    const reason = "the device was reset meanwhile";
    if (this.#descriptor.isOpen) this.#fail(reason);
    else this.error ??= reason;
  }

  #send(state: Uint8Array): void {
    for (let i = 0; this.#sent < state.length; i++) {
      if (i === PIECES_AT_ONCE) return this.#goOnLater();
      const length = Math.min(PIECE, state.length - this.#sent);
      this.#piece.set(state.subarray(this.#sent, this.#sent + length));
      const count = writeNow(this.#descriptor, this.#piece, length);
      if (count === WOULD_BLOCK) return;
      if (count < 0) return this.#fail("the front end did not take all of the state");
      this.#sent += count;
    }
    this.#end();
  }

  #receive(taker: Stateful): void {
    for (let i = 0;; i++) {
      if (i === PIECES_AT_ONCE) return this.#goOnLater();
      const count = readNow(this.#descriptor, this.#piece, PIECE);
      if (count === WOULD_BLOCK) return;
      if (count < 0) return this.#fail("the state could not be read");
      if (count === 0) break;
      const at = this.#received;
      this.#received += count;
      const most = this.#incoming.maxByteLength;
      if (this.#received > most) return this.#fail(`it is longer than ${most} bytes`);
      this.#incoming.resize(this.#received);
      new Uint8Array(this.#incoming, at, count).set(this.#piece.subarray(0, count));
    }
    this.#end();
    taker.loadState(new Uint8Array(this.#incoming), (error) => this.error = error);
  }

  #goOnLater(): void {
    this.isMoving = true;
  }

  #checkMotion(): void {
    const moved = this.#sent + this.#received;
    if (moved === this.#moved) this.#fail(`nothing moved for ${this.#patience / 1000} seconds`);
    this.#moved = moved;
  }

  #end(): void {
    clearInterval(this.#watch);
    this.#descriptor.close();
  }

  #fail(reason: string): void {
    this.#end();
    this.#incoming.resize(0);
    this.error = reason;
  }
}
