/**
 * Who must know when the translations of an endpoint change.
 *
 * Whatever keeps a translation (an IOTLB, a back end that was given one) observes its endpoint and is told
 * before the guest is: an UNMAP, DETACH or reset is answered only after every observer has let go.
 * Ranges are inclusive pages.
 *
 * @module
 */

/** Keeps translations of one endpoint. Each call returns with nothing of the range in use. */
export interface TranslationObserver {
  /** Pages `[firstPage, lastPage]` translate differently now. */
  invalidate(firstPage: number, lastPage: number): void;
  /** Every page may: the endpoint was attached, detached, or its bypass changed. */
  invalidateAll(): void;
}

const NONE: readonly TranslationObserver[] = [];

/** The observers of all endpoints. */
export class TranslationObservers {
  readonly #observers = new Map<number, readonly TranslationObserver[]>();

  /** Whether nobody observes anything. */
  get isEmpty(): boolean {
    return this.#observers.size === 0;
  }

  /** The observers of an endpoint. */
  of(endpoint: number): readonly TranslationObserver[] {
    return this.#observers.get(endpoint) ?? NONE;
  }

  /** Has an observer told about an endpoint from now on. */
  add(endpoint: number, observer: TranslationObserver): void {
    this.#observers.set(endpoint, [...this.of(endpoint), observer]);
  }

  /** Stops telling an observer. */
  remove(endpoint: number, observer: TranslationObserver): void {
    const rest = this.of(endpoint).filter((other) => other !== observer);
    if (rest.length === 0) this.#observers.delete(endpoint);
    else this.#observers.set(endpoint, rest);
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
}
