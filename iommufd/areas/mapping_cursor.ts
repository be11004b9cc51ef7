/**
 * A walk over the mappings of an I/O address space in address order, with one object for the whole walk.
 *
 * The space may change between steps: a step continues with the first mapping after the last one shown.
 */
import { AreaView } from "./area.ts";
import type { AreaSet } from "./area_set.ts";
import type { PageList } from "../page_list.ts";

/** Shows the mappings one by one. */
export class MappingCursor extends AreaView {
  /** The page list behind the mapping shown. */
  list: PageList | null = null;

  readonly #areas: AreaSet;
  #from: number;
  #slot = -1;
  #version = -1;

  /** Starts before the mapping that covers or follows `firstPage`. */
  constructor(areas: AreaSet, firstPage: number) {
    super();
    this.#areas = areas;
    this.#from = firstPage;
  }

  /** Shows the next mapping. Returns false when there is none. */
  next(): boolean {
    const areas = this.#areas.tree;
    const isUnchanged = this.#slot >= 0 && this.#version === areas.version;
    const slot = isUnchanged ? areas.after(this.#slot) : areas.atOrAfter(this.#from);
    this.#slot = slot;
    this.#version = areas.version;
    if (slot < 0) {
      this.#from = Infinity;
      return false;
    }
    this.#areas.show(this, slot);
    this.list = this.#areas.listAt(slot);
    this.#from = this.last + 1;
    return true;
  }
}
