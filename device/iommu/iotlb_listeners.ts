/**
 * What must be told when the translations of an endpoint change.
 *
 * Whatever keeps a translation observes its endpoint and is told before the guest is: an UNMAP, DETACH or
 * reset is answered only after every observer has let go. An observer in this process (an IOTLB) has let go
 * when the call returns. A *remote* one has to ask another process and hears from it later: until then it is
 * counted in {@linkcode TranslationObservers.waiting}, and the guest is answered when that is 0.
 * Ranges are inclusive pages.
 *
 * @module
 */
import { LAST_PAGE } from "../address.ts";

/** Keeps translations of one endpoint. Each call returns with nothing of the range in use. */
export interface TranslationObserver {
  /** Pages `[firstPage, lastPage]` translate differently now. */
  invalidate(firstPage: number, lastPage: number): void;
  /** Every page may: the endpoint was attached, detached, or its bypass changed. */
  invalidateAll(): void;
}

/**
 * Keeps translations of one endpoint in another process. Its calls return at once; for each acknowledgement
 * that is outstanding then, {@linkcode TranslationObservers.waiting} is 1 higher, for a bounded time.
 */
export interface RemoteObserver extends TranslationObserver {
  /** Pages `[firstPage, lastPage]`, where nothing was before, may be translated now. */
  mapped(firstPage: number, lastPage: number): void;
}

/** An observer and what it observes. */
interface Remote {
  readonly endpoint: number;
  readonly observer: RemoteObserver;
}

const NONE: readonly TranslationObserver[] = [];

/** The observers of all endpoints. */
export class TranslationObservers {
  /** Acknowledgements that remote observers wait for; they add and subtract. */
  waiting = 0;
  /** The endpoints that are observed, each once. */
  endpoints: readonly number[] = [];
  readonly #observers = new Map<number, readonly TranslationObserver[]>();
  #isSettling = false;
  #remotes: readonly Remote[] = [];

  /** Whether an acknowledgement is outstanding since {@linkcode settleLater} was called. */
  get isSettling(): boolean {
    if (this.waiting === 0) this.#isSettling = false;
    return this.#isSettling;
  }

  /** Whether there are remote ones, which hear of mappings, too. */
  get hasRemotes(): boolean {
    return this.#remotes.length > 0;
  }

  /** The observers of an endpoint, remote ones included. */
  of(endpoint: number): readonly TranslationObserver[] {
    return this.#observers.get(endpoint) ?? NONE;
  }

  /** Has an observer told about an endpoint from now on. */
  add(endpoint: number, observer: TranslationObserver): void {
    this.#observers.set(endpoint, [...this.of(endpoint), observer]);
    this.endpoints = [...this.#observers.keys()];
  }

  /** The same for a remote one, which hears of mappings, too. */
  addRemote(endpoint: number, observer: RemoteObserver): void {
    this.add(endpoint, observer);
    this.#remotes = [...this.#remotes, { endpoint, observer }];
  }

  /** Stops telling an observer. It must not wait for anything any more. */
  remove(endpoint: number, observer: TranslationObserver): void {
    const rest = this.of(endpoint).filter((other) => other !== observer);
    if (rest.length === 0) this.#observers.delete(endpoint);
    else this.#observers.set(endpoint, rest);
    this.endpoints = [...this.#observers.keys()];
    this.#remotes = this.#remotes.filter((remote) =>
      remote.endpoint !== endpoint || remote.observer !== observer
    );
  }

  /** Tells the observers of one endpoint that everything may have changed. */
  invalidateAll(endpoint: number): void {
    for (const observer of this.of(endpoint)) observer.invalidateAll();
  }

  /** Tells every observer that everything may have changed. */
  invalidateEverything(): void {
    for (const observers of this.#observers.values()) {
      for (const observer of observers) observer.invalidateAll();
    }
  }

  /** Tells the remote observers of one endpoint that pages may be translated now. */
  mapped(endpoint: number, firstPage: number, lastPage: number): void {
    for (const remote of this.#remotes) {
      if (remote.endpoint === endpoint) remote.observer.mapped(firstPage, lastPage);
    }
  }

  /** Tells every remote observer that any page may be translated now. */
  mappedEverything(): void {
    for (const { observer } of this.#remotes) observer.mapped(0, LAST_PAGE);
  }

  /**
   * What has just been done for a message is done once nothing is outstanding any more: until then the message gets no
   * answer, and no request is taken.
   */
  settleLater(): void {
    this.#isSettling = true;
  }
}
