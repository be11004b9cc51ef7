/**
 * Hardware domain ids (VT-d DID, SMMU VMID and ASID, AMD DomainID): the tags that translations are
 * cached under. A page table gets one id, when the first endpoint is attached to it.
 */
import { EINVAL, ENOMEM, type Errno, OK } from "../errno.ts";
import type { HardwareTable } from "../builder/hardware_table.ts";

const NONE = -1;

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
   * @returns OK; EINVAL if `wanted` is out of range, another table's, or not the one `table` has; ENOMEM if none is free.
   */
  take(table: HardwareTable, wanted: number | undefined): Errno {
    const known = this.#byTable.get(table);
    if (known !== undefined) {
      if (wanted !== undefined && wanted !== known.id) return EINVAL;
      known.users++;
      return OK;
    }
    const id = wanted ?? this.#free();
    if (id === NONE && wanted === undefined) return ENOMEM;
    if (!(Number.isInteger(id) && id >= this.#least && id <= this.#most)) return EINVAL;
    if (this.#byId.has(id)) return EINVAL;
    const tag = { id, table, users: 1 };
    this.#byTable.set(table, tag);
    this.#byId.set(id, tag);
    return OK;
  }

  /** The id of `table`, or -1. */
  idOf(table: HardwareTable): number {
    return this.#byTable.get(table)?.id ?? NONE;
  }

  /** Counts one user of `id` less; the last one frees it. */
  release(id: number): void {
    const tag = this.#byId.get(id);
    if (tag === undefined || --tag.users > 0) return;
    this.#byId.delete(id);
    this.#byTable.delete(tag.table);
  }

  /** An id that no table has, or -1. */
  #free(): number {
    const ids = this.#most - this.#least + 1;
    for (let tried = 0; tried < ids; tried++) {
      const id = this.#next;
      this.#next = id === this.#most ? this.#least : id + 1;
      if (!this.#byId.has(id)) return id;
    }
    return NONE;
  }
}
