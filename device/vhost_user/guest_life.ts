/**
 * What a ring that starts says about the guest: whether it is the one that ran before.
 *
 * **Stop, restart, reboot.** QEMU announces neither a plain stop of the machine nor a reboot: both stop the
 * rings, and a status of 0 comes with either. But a machine that goes on gives each ring the base it had,
 * while a new driver begins an unused ring at the beginning, after it has read the config space. So a ring
 * that stopped elsewhere and starts at the beginning is a new life. One that stopped at the beginning (the index
 * of a split ring has 16 bits, and a packed ring is there after every second lap) is a new life only if the config
 * space was read in between and nothing in the ring is used. A ring that was not used before either says nothing
 * beside one that was; where none was, it stays in doubt. The first ring that shows which it is speaks for all.
 *
 * **A ring's first start in a session** says something about the guest, too: it may go on from another session, or
 * from another process. A ring that was used outweighs all others: a packed ring comes back to its beginning every few
 * requests. After RESET_DEVICE, or once a new life has been found, nothing more is to be learned; and after a state was
 * loaded no start is a new life.
 */
import type { StartSign } from "../virtio_device.ts";
import { isFreshBase, type Ring } from "./ring.ts";

/**
 * Whose ring starts again: a new guest's, or that of the guest which goes on; what is in the ring may have to tell. It
 * may be either where the guest has used no ring so far.
 */
export type Life = "new" | "same" | "unless used" | "perhaps new";

/** What is known as a process that takes over is told of it. */
export interface LifeState {
  /** Whether the config space was read since the rings stopped. */
  readonly configRead: boolean;
  /** Whether a state was loaded, with which the guest goes on. */
  readonly isLoaded: boolean;
  /** Whether a ring's first start in this session was not at its beginning. */
  readonly usedBefore: boolean;
}

/** What is known of the guest from the rings of a session. */
export class GuestLife {
  /** Whether the config space was read since the rings stopped. */
  configRead = false;
  readonly #rings: readonly Ring[];
  /** Whether a state was loaded, with which the guest goes on. */
  #isLoaded = false;
  /** Whether a ring's first start in this session was not at its beginning. */
  #usedBefore = false;

  /** Nothing is known yet. */
  constructor(rings: readonly Ring[]) {
    this.#rings = rings;
  }

  /** The places where the rings stopped do not count any more, nor that the config space was read. */
  forgetStops(): void {
    for (const ring of this.#rings) ring.stoppedAt = undefined;
    this.configRead = false;
  }

  /** The device has become another, whose rings go on where they stopped then. */
  stateLoaded(): void {
    this.forgetStops();
    this.#isLoaded = true;
    this.#usedBefore = false;
    for (const ring of this.#rings) ring.begun = false;
  }

  /** What is known, for {@linkcode GuestLife.restore}. */
  save(): LifeState {
    const { configRead } = this;
    return { configRead, isLoaded: this.#isLoaded, usedBefore: this.#usedBefore };
  }

  /** What an earlier process knew. */
  restore({ configRead, isLoaded, usedBefore }: LifeState): void {
    this.configRead = configRead;
    this.#isLoaded = isLoaded;
    this.#usedBefore = usedBefore;
  }

  /** What a ring's first start is a sign of; nothing once a ring was found that had been used. */
  signOf(ring: Ring, packed: boolean): StartSign | undefined {
    if (this.#usedBefore) return undefined;
    if (this.#isLoaded) return "loaded";
    // What is in the ring outweighs its base: a packed one is back at its beginning with every lap.
    if (isFreshBase(ring.base, packed) && ring.queue?.isUnused === true) {
      return this.configRead ? "new" : "unused";
    }
    this.#usedBefore = true;
    return "used";
  }

  /** What a ring that starts again says about the guest; nothing if this does not tell. */
  of(ring: Ring, packed: boolean): Life | undefined {
    if (ring.stoppedAt === undefined) return undefined;
    if (!isFreshBase(ring.base, packed)) return "same";
    if (!isFreshBase(ring.stoppedAt, packed)) return "new";
    if (!this.configRead) return undefined;
    if (!ring.wasUnused) return "unless used";
    const used = this.#rings.filter((other) =>
      other !== ring && other.stoppedAt !== undefined && !other.wasUnused
    );
    // Front ends describe all rings before they enable the first: then a base tells already what its ring will say.
    const described = used.find((other) => other.started && !isFreshBase(other.stoppedAt!, packed));
    if (described !== undefined) return isFreshBase(described.base, packed) ? "new" : "same";
    return used.length > 0 ? undefined : "unless used";
  }
}
