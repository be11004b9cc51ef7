/**
 * Hardware domain ids (VT-d DID, SMMU VMID and ASID, AMD DomainID): the tags that translations are
 * cached under. One id per page table, given out when the first endpoint is attached to it.
 *
 * @module
 */
import type { HardwareTable } from "../builder/hardware_table.ts";

interface Tag {
  readonly id: number;
  readonly table: HardwareTable;
  users: number;
}

/** The ids of one unit. */
export class DomainIds {
  readonly #least: number;
  readonly #most: number;
  readonly #byTable = new Map<HardwareTable, Tag>();
  readonly #byId = new Map<number, Tag>();
  #next: number;

  /** Ids are in `[least, most]`. */
  constructor(least: number, most: number) {
    this.#least = least;
    this.#most = most;
    this.#next = least;
  }

  /**
   * Counts one more user of `table`'s id, which is `wanted` or, without that, one that is free.
   *
   * @returns the id, or -1 if `wanted` is out of range, another table's, or not the one `table` has;
   * -2 if none is free.
   */
  take(table: HardwareTable, wanted: number | undefined): number {
    const known = this.#byTable.get(table);
    if (known !== undefined) {
      if (wanted !== undefined && wanted !== known.id) return -1;
      known.users++;
      return known.id;
    }
    const id = wanted ?? this.#free();
    if (id === -2) return id;
    if (!(Number.isInteger(id) && id >= this.#least && id <= this.#most)) return -1;
    if (this.#byId.has(id)) return -1;
    const tag = { id, table, users: 1 };
    this.#byTable.set(table, tag);
    this.#byId.set(id, tag);
    return id;
  }

  /** Counts one user of `id` less. */
  release(id: number): void {
    const tag = this.#byId.get(id);
    if (tag === undefined || --tag.users > 0) return;
    this.#byId.delete(id);
    this.#byTable.delete(tag.table);
  }

  /** The page table that `id` tags, if any. */
  tableOf(id: number): HardwareTable | undefined {
    return this.#byId.get(id)?.table;
  }

  #free(): number {
    const ids = this.#most - this.#least + 1;
    for (let tried = 0; tried < ids; tried++) {
      const id = this.#next;
      this.#next = id === this.#most ? this.#least : id + 1;
      if (!this.#byId.has(id)) return id;
    }
    return -2;
  }
}
