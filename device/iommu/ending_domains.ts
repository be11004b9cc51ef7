/**
 * Domains that have lost their last endpoint, and page tables of domains that have lost the last of a format, and hold
 * more than can be given back at once.
 *
 * For the guest they no longer exist: no device table leads to them, nothing keeps a translation of theirs, and their
 * ids may be used again. What they hold is given back in pieces, while requests are served. It counts against the limits
 * until then, so a guest cannot exceed them by ending domains faster than their memory is given back.
 */
import { TOP_PAGE } from "../../iommufd/mod.ts";
import type { HardwareTable } from "../../pagetable/mod.ts";
import type { Domain } from "./domain.ts";
import { MAPPINGS_PER_PIECE, PiecewiseUnmap } from "./piecewise_unmap.ts";

/** Tables of a page table that are given back at once, and up to 512 more: some 0.1 ms. */
const TABLES_PER_PIECE = 2048;
/** Ending a domain takes as long as removing so many mappings, besides its own. */
const DOMAIN_COST = 64;

/** The domains and page tables. */
export class EndingDomains {
  readonly #domains: Domain[] = [];
  readonly #tables: HardwareTable[] = [];
  /** Removes the mappings of the last one. */
  #unmap: PiecewiseUnmap | undefined;

  /** How many there are. */
  get count(): number {
    return this.#domains.length;
  }

  /** Whether there is nothing to give back. */
  get isEmpty(): boolean {
    return this.#domains.length === 0 && this.#tables.length === 0;
  }

  /** Adds a domain without endpoints. */
  add(domain: Domain): void {
    // The one whose mappings are being removed stays the last.
    if (this.#unmap === undefined) this.#domains.push(domain);
    else this.#domains.splice(-1, 0, domain);
  }

  /** Adds a page table that is attached nowhere, and that nothing leads to. */
  addTable(table: HardwareTable): void {
    this.#tables.push(table);
  }

  /**
   * Gives back a bounded piece.
   *
   * @returns How many mappings were removed.
   */
  step(): number {
    const table = this.#tables.at(-1);
    if (table !== undefined) {
      if (!table.shrink(TABLES_PER_PIECE)) return 0;
      table.destroy();
      this.#tables.pop();
      return 0;
    }
    let removed = 0;
    let cost = 0;
    while (this.#domains.length > 0 && cost < MAPPINGS_PER_PIECE) {
      const domain = this.#domains[this.#domains.length - 1];
      this.#unmap ??= new PiecewiseUnmap(domain.space, 0, TOP_PAGE);
      const isOver = this.#unmap.step();
      removed += this.#unmap.removed;
      cost += this.#unmap.removed + DOMAIN_COST;
      // A piece that is not the last one is a full one.
      if (!isOver) break;
      this.#unmap = undefined;
      this.#domains.pop();
      domain.destroy();
    }
    return removed;
  }
}
