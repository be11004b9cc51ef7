/**
 * Fault reports to the guest on the event queue.
 *
 * Source: virtio 1.4, section 5.13.6.9. The guest keeps buffers in the queue, of which a report takes one. Without a
 * buffer the report waits. Beyond a number of waiting reports it is dropped and counted: a storm of faults must cost
 * neither memory nor time.
 */
import { Chain, type Queue } from "../../vring/mod.ts";
import { writeAddress } from "../address.ts";
import { FAULT_F_ADDRESS, FAULT_SIZE } from "./wire.ts";

/** How many reports wait for a buffer at most. */
export const WAITING_MAX = 64;

/** Builds fault reports and delivers them to the guest. */
export class FaultEvents {
  readonly #chain = new Chain();
  readonly #waiting = new Uint8Array(WAITING_MAX * FAULT_SIZE);
  readonly #view = new DataView(this.#waiting.buffer);
  #first = 0;
  #count = 0;
  /** Reports delivered to the guest since power-on. */
  reported = 0;
  /** Reports dropped because too many waited already, or the guest's buffer was too small. */
  dropped = 0;

  /** How many reports wait for a buffer. */
  get waiting(): number {
    return this.#count;
  }

  /**
   * Queues a report, which {@linkcode deliver} delivers.
   *
   * @param reason One of the `FAULT_R_…` constants.
   * @param flags `FAULT_F_READ` or `FAULT_F_WRITE`; the address is always reported.
   * @param page The page accessed.
   * @param offset Bits 11:0 of the address.
   */
  add(reason: number, flags: number, endpoint: number, page: number, offset: number): void {
    if (this.#count === WAITING_MAX) {
      this.dropped++;
      return;
    }
    const at = ((this.#first + this.#count) % WAITING_MAX) * FAULT_SIZE;
    this.#waiting.fill(0, at, at + FAULT_SIZE); // E1, E2: reserved fields and undefined flags are 0
    this.#waiting[at] = reason;
    this.#view.setUint32(at + 4, flags | FAULT_F_ADDRESS, true);
    this.#view.setUint32(at + 8, endpoint, true); // E3
    writeAddress(this.#view, at + 16, page, offset);
    this.#count++;
  }

  /**
   * Delivers waiting reports while the guest has buffers. A buffer that is too small is returned empty and its report is
   * dropped (E5: "If a buffer is too small to contain the fault report, the device SHOULD NOT use multiple buffers to
   * describe it.").
   *
   * @returns Whether anything was published.
   */
  deliver(queue: Queue): boolean {
    let delivered = false;
    while (this.#count > 0 && queue.next(this.#chain)) {
      const at = this.#first * FAULT_SIZE;
      const written = this.#chain.writableLength < FAULT_SIZE
        ? 0
        : this.#chain.scatter(0, this.#waiting, at, FAULT_SIZE);
      if (written === FAULT_SIZE) this.reported++;
      else this.dropped++;
      queue.complete(this.#chain, written === FAULT_SIZE ? FAULT_SIZE : 0);
      this.#first = (this.#first + 1) % WAITING_MAX;
      this.#count--;
      delivered = true;
    }
    if (delivered) queue.publish();
    return delivered;
  }

  /** Drops the reports that wait, when their guest is reset. */
  clear(): void {
    this.#count = 0;
  }

  /** The reports that wait, one behind the other as the guest would get them. */
  save(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(this.#count * FAULT_SIZE);
    for (let i = 0; i < this.#count; i++) {
      const at = ((this.#first + i) % WAITING_MAX) * FAULT_SIZE;
      bytes.set(this.#waiting.subarray(at, at + FAULT_SIZE), i * FAULT_SIZE);
    }
    return bytes;
  }

  /** Replaces the reports that wait; at most {@linkcode WAITING_MAX}. */
  restore(bytes: Uint8Array): void {
    this.#first = 0;
    this.#count = bytes.length / FAULT_SIZE;
    this.#waiting.set(bytes);
  }
}
