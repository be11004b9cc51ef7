/**
 * The event queue of a vsock device. Back ends leave it to the VMM, which here is the relay.
 *
 * Source: virtio 1.4, section 5.10.6.7. An event is a u32, 0 for TRANSPORT_RESET: "communication has been
 * interrupted"; the guest then ends all its connections and reads its address again.
 */
import { Chain, type Queue } from "../../../vring/mod.ts";

const TRANSPORT_RESET = new Uint8Array(4);

/** The event queue. */
export class TransportEvents {
  /** Whether a TRANSPORT_RESET is to be sent. */
  due = false;
  readonly #chain = new Chain(1);

  /** Sends the event, if one is due and there is a buffer. Returns whether it did. */
  serve(queue: Queue): boolean {
    if (!this.due || !queue.next(this.#chain)) return false;
    queue.complete(this.#chain, Math.max(0, this.#chain.scatter(0, TRANSPORT_RESET)));
    queue.publish();
    this.due = false;
    return true;
  }
}
