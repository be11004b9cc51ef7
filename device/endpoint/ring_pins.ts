/**
 * Pins of the pages that an endpoint's rings lie in. They follow the endpoint from domain to domain.
 *
 * A queue keeps views of its ring, so the ring's pages are pinned in the I/O address space, and an UNMAP of them calls
 * this access first. An UNMAP of other pages does not. Ranges are inclusive pages.
 */
import { Access, type IoAddressSpace } from "../../iommufd/mod.ts";
import { OK } from "../../pagetable/mod.ts";
import { LAST_PAGE } from "../address.ts";

/** Pins of one endpoint. */
export class RingPins {
  readonly #access: Access;

  /** @param onUnmap Called when pinned pages are about to be unmapped, after all pins have been removed. */
  constructor(onUnmap: () => void) {
    this.#access = new Access({
      onUnmap: (access) => {
        // Queues look up their whole rings again, so their other pins are removed as well.
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

  /** Unpins everything and detaches from the space. */
  release(): void {
    if (this.#access.space === null) return;
    this.#access.unpinAll(0, LAST_PAGE);
    this.#access.detach();
  }
}
