/**
 * The pins that hold an endpoint's rings: an access of the pages engine that follows the endpoint from domain
 * to domain.
 *
 * A queue keeps views of its ring, so the ring's pages are pinned in the I/O address space, and an UNMAP that
 * wants them back asks here first. Whatever else is unmapped does not concern the rings.
 * Ranges are inclusive pages.
 *
 * @module
 */
import { Access, type IoAddressSpace } from "../../iommufd/mod.ts";
import { OK } from "../../pagetable/mod.ts";
import { LAST_PAGE } from "../address.ts";

/** Pins of one endpoint. */
export class RingPins {
  readonly #access: Access;

  /** @param onUnmap Told that pinned pages are about to be unmapped; the pins are gone when it returns. */
  constructor(onUnmap: () => void) {
    this.#access = new Access({
      onUnmap: (access) => {
        // Queues take up their whole rings anew, so their other pins go, too.
        access.unpinAll(0, LAST_PAGE);
        onUnmap();
      },
    });
  }

  /** Ranges that are pinned. */
  get count(): number {
    return this.#access.pinCount;
  }

  /**
   * Pins pages of the space that the endpoint translates through now.
   *
   * @returns whether they are pinned; device memory, for example, cannot be.
   */
  pin(space: IoAddressSpace, firstPage: number, lastPage: number, write: boolean): boolean {
    if (this.#access.space !== space) {
      this.release();
      this.#access.attach(space);
    }
    return this.#access.pin(firstPage, lastPage, null, write) === OK;
  }

  /** Lets go of everything, the space included. */
  release(): void {
    if (this.#access.space === null) return;
    this.#access.unpinAll(0, LAST_PAGE);
    this.#access.detach();
  }
}
