/**
 * The event queue of a vsock device, whose back ends leave it to the VMM: here it is ours.
 *
 * Source: virtio 1.4, section 5.10.6.7. An event is a u32, 0 for TRANSPORT_RESET: "communication has been interrupted";
 * the guest then ends all its connections and reads its address anew.
 *
 * @module
 */
import { Chain, type Queue } from "../../../vring/mod.ts";

const TRANSPORT_RESET = new Uint8Array(4);

/** The queue. */
export class TransportEvents {
  /** Whether the guest has to hear of a reset. */
  due = false;
  readonly #chain = new Chain(1);

  /** Tells the guest, if there is something to tell and a buffer for it. Returns whether it did. */
  serve(queue: Queue): boolean {
    if (!this.due || !queue.next(this.#chain)) return false;
    queue.complete(this.#chain, Math.max(0, this.#chain.scatter(0, TRANSPORT_RESET)));
    queue.publish();
    this.due = false;
    return true;
  }
}
