/**
 * A registry of the engine's objects: ids, who uses whom, and the order they may go in. What a file descriptor of
 * `/dev/iommu` is to the kernel.
 *
 * Address spaces, page tables, accesses and page lists get ids from 1. An object that others use cannot be destroyed
 * (EBUSY): an address space while page tables or accesses are attached, a page list while areas slice it. Closing
 * destroys what nobody uses until nothing is left, and finds what leaked.
 *
 * @module
 */
import type { PageTable, Protection } from "../pagetable/page_table.ts";
import { Access, type AccessOptions } from "./access.ts";
import { createPageList, type PageListOptions } from "./page_list.ts";
import { EBUSY, EINVAL, ENOENT, type Errno, OK } from "./errno.ts";
import { type AddressSpaceOptions, IoAddressSpace } from "./io_address_space.ts";
import type { MemorySource } from "./memory_source.ts";
import type { PageList } from "./page_list.ts";
import type { PinBudget } from "./pin_budget.ts";

/** The largest id. */
const MAX_ID = 2 ** 31 - 1;

/** A page table and the space it is attached to. */
interface AttachedTable {
  readonly table: PageTable;
  readonly space: IoAddressSpace;
}

type Entry =
  | { readonly kind: "ioas"; readonly space: IoAddressSpace }
  | { readonly kind: "page table"; readonly attached: AttachedTable }
  | { readonly kind: "access"; readonly access: Access }
  | { readonly kind: "page list"; readonly list: PageList };

/** One registry. Operations that make an object answer with its id, or with an error number below 0. */
export class ObjectRegistry {
  readonly #entries = new Map<number, Entry>();
  #lastId = 0;
  #budget: PinBudget | null = null;
  #isOpen = true;

  /** Objects there are. */
  get count(): number {
    return this.#entries.size;
  }

  /** What page lists made from now on charge their pins to. EBUSY once there are objects. */
  setBudget(budget: PinBudget | null): Errno {
    if (this.#entries.size > 0) return EBUSY;
    this.#budget = budget;
    return OK;
  }

  /** Makes an address space. */
  createIoas(options: AddressSpaceOptions = {}): number {
    if (!this.#isOpen) return -EINVAL;
    return this.#add({ kind: "ioas", space: new IoAddressSpace(options) });
  }

  /** Makes a page list over a source. */
  createPageList(source: MemorySource, options: PageListOptions = {}): number {
    if (!this.#isOpen) return -EINVAL;
    const list = createPageList(source, { budget: this.#budget, ...options });
    return this.#add({ kind: "page list", list });
  }

  /** Attaches a page table to an address space; the registry destroys it with its id. */
  createPageTable(ioasId: number, table: PageTable): number {
    const space = this.ioas(ioasId);
    if (space === null || !this.#isOpen) return -ENOENT;
    const errno = space.addPageTable(table);
    return errno === OK ? this.#add({ kind: "page table", attached: { table, space } }) : -errno;
  }

  /** Makes an access, attached to an address space. */
  createAccess(ioasId: number, options: AccessOptions = {}): number {
    const space = this.ioas(ioasId);
    if (space === null || !this.#isOpen) return -ENOENT;
    const access = new Access(options);
    access.attach(space);
    return this.#add({ kind: "access", access });
  }

  /** The address space of an id, or null. */
  ioas(id: number): IoAddressSpace | null {
    const entry = this.#entries.get(id);
    return entry?.kind === "ioas" ? entry.space : null;
  }

  /** The access of an id, or null. */
  access(id: number): Access | null {
    const entry = this.#entries.get(id);
    return entry?.kind === "access" ? entry.access : null;
  }

  /** The page list of an id, or null. */
  pageList(id: number): PageList | null {
    const entry = this.#entries.get(id);
    return entry?.kind === "page list" ? entry.list : null;
  }

  /** Maps by ids: {@linkcode IoAddressSpace.map}; ENOENT for an unknown one. */
  map(
    ioasId: number,
    firstPage: number,
    lastPage: number,
    listId: number,
    firstIndex: number,
    protection: Protection,
  ): Errno {
    const space = this.ioas(ioasId);
    const list = this.pageList(listId);
    if (space === null || list === null) return ENOENT;
    return space.map(firstPage, lastPage, list, firstIndex, protection);
  }

  /** Destroys an object. ENOENT for an unknown id; EBUSY while something uses it. */
  destroy(id: number): Errno {
    const entry = this.#entries.get(id);
    if (entry === undefined) return ENOENT;
    const errno = this.#end(entry);
    if (errno === OK) this.#entries.delete(id);
    return errno;
  }

  /**
   * Destroys everything, users before what they use. The registry cannot be used afterwards.
   *
   * Throws an Error if something cannot be destroyed, which is a leak: a holder of pins that does not let go, or a user
   * the registry does not know.
   */
  close(): void {
    this.#isOpen = false;
    for (let isMoving = true; isMoving && this.#entries.size > 0;) {
      isMoving = false;
      for (const id of [...this.#entries.keys()].reverse()) {
        if (this.destroy(id) === OK) isMoving = true;
      }
    }
    if (this.#entries.size === 0) return;
    const left = [...this.#entries].map(([id, entry]) => `${entry.kind} ${id}`);
    throw new Error(`Cannot close the registry: still in use: ${left.join(", ")}`);
  }

  #add(entry: Entry): number {
    do this.#lastId = this.#lastId === MAX_ID ? 1 : this.#lastId + 1; while (
      this.#entries.has(this.#lastId)
    );
    this.#entries.set(this.#lastId, entry);
    return this.#lastId;
  }

  #end(entry: Entry): Errno {
    switch (entry.kind) {
      case "ioas":
        return entry.space.destroy();
      case "access":
        return entry.access.detach();
      case "page table": {
        const errno = entry.attached.space.removePageTable(entry.attached.table);
        if (errno === OK) entry.attached.table.destroy();
        return errno;
      }
      case "page list":
        if (entry.list.areas > 0 || entry.list.pinnedPages > 0) return EBUSY;
        entry.list.release();
        return OK;
    }
  }
}
