/**
 * What is known of the guest's attachments, and which endpoints are blocked because it is not.
 *
 * A connection that ends is no reset of the guest (virtio 1.4, 5.13.4 and 5.13.6): for the driver, its endpoints are
 * still attached. So they stay *blocked*, whatever the bypass byte says, until a new life of the guest is certain. Bypass
 * is for endpoints that the guest has never attached, or has detached (O4).
 *
 * Where a guest continues whose beginning this process has not served, it is not known which endpoints it has attached:
 * then every endpoint is blocked but those that it detaches. For an endpoint that is attached now, its domain decides.
 */

/**
 * What is known. `none`: no guest has used the device yet. `known`: all that the guest has attached is attached here.
 * `lost`: the connection has ended, and no queue has started since. `unknown`: a guest goes on that had attached
 * endpoints and mapped pages of which nothing is known here.
 */
export type LifeState = "none" | "known" | "lost" | "unknown";

/** A copy of a {@linkcode GuestLife}. */
export interface LifeRecord {
  /** What is known. */
  readonly state: LifeState;
  /** `lost`: the endpoints that are blocked. `unknown`: those that are not. Else empty. */
  readonly endpoints: readonly number[];
}

/**
 * How many endpoints are remembered as given back, which bounds the cost of a guest that detaches all that exist: the
 * others stay blocked until they are attached.
 */
export const GIVEN_BACK_MAX = 65536;

/** No endpoint is leaving. */
const NONE_LEAVES = () => false;

/** The life of a guest, as far as the device knows it. */
export class GuestLife {
  #state: LifeState = "none";
  readonly #endpoints: Set<number> = new Set();
  /** Whether an endpoint was attached when the connection ended and is not in the set yet. */
  #isLeaving: (endpoint: number) => boolean = NONE_LEAVES;
  /** How many endpoints these are. */
  #leaving = 0;

  /** What is known. */
  get state(): LifeState {
    return this.#state;
  }

  /** How many endpoints are blocked; undefined if it is all that are neither attached nor given back. */
  get blockedCount(): number | undefined {
    if (this.#state === "unknown") return undefined;
    return this.#state === "lost" ? this.#endpoints.size + this.#leaving : 0;
  }

  /** The ids of the endpoints that are blocked, where there is a number of them, but for those that are leaving. */
  get blockedIds(): Iterable<number> {
    return this.#state === "lost" ? this.#endpoints : [];
  }

  /** Whether any endpoint may be blocked. */
  get blocksAny(): boolean {
    return this.#state === "unknown" ||
      (this.#state === "lost" && this.#endpoints.size + this.#leaving > 0);
  }

  /** Whether an endpoint that is not attached is blocked, whatever the bypass byte says. */
  blocks(endpoint: number): boolean {
    if (this.#isLeaving(endpoint)) return true;
    if (this.#state === "unknown") return !this.#endpoints.has(endpoint);
    return this.#state === "lost" && this.#endpoints.has(endpoint);
  }

  /** The guest uses the device, and all that it has attached is known. */
  renew(): void {
    this.assign({ state: "known", endpoints: [] });
  }

  /** A guest continues of which nothing is known. */
  loseTrack(): void {
    this.assign({ state: "unknown", endpoints: [] });
  }

  /** The guest has detached an endpoint: it is not blocked any more. */
  gaveBack(endpoint: number): void {
    if (this.#state === "unknown" && this.#endpoints.size < GIVEN_BACK_MAX) {
      this.#endpoints.add(endpoint);
    }
  }

  /**
   * The connection has ended while endpoints were attached. They may be very many: they are blocked from now on, and
   * {@linkcode hasLeft} names them one by one.
   *
   * @param count How many were attached.
   * @param isLeaving Whether one of them is yet to be named.
   */
  lose(count: number, isLeaving: (endpoint: number) => boolean): void {
    if (this.#state !== "unknown" && (this.#state !== "none" || count > 0)) this.#state = "lost";
    if (count === 0) return;
    this.#isLeaving = isLeaving;
    this.#leaving += count;
  }

  /** An endpoint has left the domain that it was attached to until all were detached. */
  hasLeft(endpoint: number): void {
    if (this.#isLeaving === NONE_LEAVES) return;
    this.#leaving--;
    if (this.#state === "unknown") this.#endpoints.delete(endpoint);
    else this.#endpoints.add(endpoint);
  }

  /** All endpoints have left. */
  allHaveLeft(): void {
    this.#isLeaving = NONE_LEAVES;
    this.#leaving = 0;
  }

  /** A copy, for {@linkcode assign}. */
  copy(): LifeRecord {
    return { state: this.#state, endpoints: [...this.#endpoints] };
  }

  /** Takes the state of a copy. */
  assign({ state, endpoints }: LifeRecord): void {
    this.#state = state;
    // Those that are still leaving belong to the life before.
    this.allHaveLeft();
    this.#endpoints.clear();
    for (const endpoint of endpoints) this.#endpoints.add(endpoint);
  }
}
