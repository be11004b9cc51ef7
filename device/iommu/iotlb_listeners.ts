/**
 * IOTLB listeners: what keeps translations of an endpoint and is told when they change.
 *
 * An UNMAP, DETACH or reset is answered only after every IOTLB listener has dropped the translation. One in this process
 * (an IOTLB) has done so when the call returns. A *remote* one has to ask another process, which acknowledges later: until
 * then it is counted in {@linkcode IotlbListeners.waiting}, and the guest is answered when that is 0.
 * Ranges are inclusive pages.
 */
import type { InvalidationGather } from "../../pagetable/mod.ts";
import { LAST_PAGE } from "../address.ts";
import type { ModelRecorder } from "./model_recorder.ts";

/** Keeps translations of one endpoint. Each call returns with nothing of the range in use. */
export interface IotlbListener {
  /** Pages `[firstPage, lastPage]` translate differently now. */
  invalidate(firstPage: number, lastPage: number): void;
  /** Every page may: the endpoint was attached, detached, or its bypass changed. */
  invalidateAll(): void;
}

/**
 * Keeps translations of one endpoint in another process. Its calls return at once; for each acknowledgement
 * that is outstanding then, {@linkcode IotlbListeners.waiting} is 1 higher, for a bounded time.
 */
export interface RemoteIotlbListener extends IotlbListener {
  /** Pages `[firstPage, lastPage]`, where nothing was before, may be translated now. */
  mapped(firstPage: number, lastPage: number): void;
}

/** An IOTLB listener and its endpoint. */
interface Remote {
  readonly endpoint: number;
  readonly listener: RemoteIotlbListener;
}

const NONE: readonly IotlbListener[] = [];

/** The IOTLB listeners of all endpoints. */
export class IotlbListeners {
  /** The endpoints that have IOTLB listeners, each once. */
  endpoints: readonly number[] = [];
  /** Records invalidations and acknowledgements, if something does. */
  recorder: ModelRecorder | undefined;
  readonly #listeners = new Map<number, readonly IotlbListener[]>();
  #waiting = 0;
  #isSettling = false;
  #remotes: readonly Remote[] = [];

  /** Acknowledgements that remote IOTLB listeners wait for. The guest's answers wait until it is 0. */
  get waiting(): number {
    return this.#waiting;
  }

  /** A remote IOTLB listener waits for one more acknowledgement. */
  expect(): void {
    this.#waiting++;
    this.recorder?.expected();
  }

  /** Acknowledgements have come, or are not waited for any more. Throws an Error if there are not so many. */
  arrived(count = 1): void {
    if (count > this.#waiting) {
      throw new Error(`Cannot take ${count} acknowledgements: ${this.#waiting} are outstanding`);
    }
    this.#waiting -= count;
    if (count > 0) this.recorder?.acknowledged(count);
  }

  /** Whether an acknowledgement is outstanding since {@linkcode settleLater} was called. */
  get isSettling(): boolean {
    if (this.waiting === 0) this.#isSettling = false;
    return this.#isSettling;
  }

  /** Whether there are remote ones, which are told of mappings, too. */
  get hasRemotes(): boolean {
    return this.#remotes.length > 0;
  }

  /** The IOTLB listeners of an endpoint, remote ones included. */
  of(endpoint: number): readonly IotlbListener[] {
    return this.#listeners.get(endpoint) ?? NONE;
  }

  /** Adds an IOTLB listener of an endpoint. */
  add(endpoint: number, listener: IotlbListener): void {
    this.#listeners.set(endpoint, [...this.of(endpoint), listener]);
    this.endpoints = [...this.#listeners.keys()];
  }

  /** Adds a remote one, which is told of mappings, too. */
  addRemote(endpoint: number, listener: RemoteIotlbListener): void {
    this.add(endpoint, listener);
    this.#remotes = [...this.#remotes, { endpoint, listener }];
  }

  /** Removes an IOTLB listener, which must not wait for anything any more. */
  remove(endpoint: number, listener: IotlbListener): void {
    const rest = this.of(endpoint).filter((other) => other !== listener);
    if (rest.length === 0) this.#listeners.delete(endpoint);
    else this.#listeners.set(endpoint, rest);
    this.endpoints = [...this.#listeners.keys()];
    this.#remotes = this.#remotes.filter((remote) =>
      remote.endpoint !== endpoint || remote.listener !== listener
    );
  }

  /** Tells the IOTLB listeners of one endpoint that everything may have changed. */
  invalidateAll(endpoint: number): void {
    const listeners = this.of(endpoint);
    if (listeners.length > 0) this.recorder?.invalidated(endpoint, 0, LAST_PAGE);
    for (const listener of listeners) listener.invalidateAll();
  }

  /** Tells the IOTLB listeners of one endpoint what changed in the tables that translate for it. */
  invalidate(endpoint: number, gather: InvalidationGather): void {
    const { everything, rangeCount, firstPages, lastPages } = gather;
    if (everything) this.invalidateAll(endpoint);
    for (let i = 0; i < rangeCount; i++) {
      this.recorder?.invalidated(endpoint, firstPages[i], lastPages[i]);
    }
    for (const listener of this.of(endpoint)) {
      for (let i = 0; i < rangeCount; i++) listener.invalidate(firstPages[i], lastPages[i]);
    }
  }

  /** Tells every IOTLB listener that everything may have changed. */
  invalidateEverything(): void {
    for (const endpoint of this.#listeners.keys()) this.invalidateAll(endpoint);
  }

  /** Tells the remote IOTLB listeners of one endpoint that pages may be translated now. */
  mapped(endpoint: number, firstPage: number, lastPage: number): void {
    for (const remote of this.#remotes) {
      if (remote.endpoint === endpoint) remote.listener.mapped(firstPage, lastPage);
    }
  }

  /** Tells every remote IOTLB listener that any page may be translated now. */
  mappedEverything(): void {
    for (const { listener } of this.#remotes) listener.mapped(0, LAST_PAGE);
  }

  /**
   * Delays the reply to the message that is being served, and all requests, until no acknowledgement is outstanding.
   */
  settleLater(): void {
    this.#isSettling = true;
  }
}
