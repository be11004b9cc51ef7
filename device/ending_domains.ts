/**
 * Domains that have lost their last endpoint and hold more than can be given back at once.
 *
 * For the guest they are gone: no device table leads to them, nothing keeps a translation of theirs, and their ids may
 * be used again. What they hold is given back in pieces, while requests go on being served. It counts against the
 * limits until then, so a guest cannot have more than those allow by ending domains faster than they end.
 *
 * @module
 */
import { TOP_PAGE } from "../iommufd/mod.ts";
import type { Domain } from "./domain.ts";
import { MAPPINGS_PER_PIECE, PiecewiseUnmap } from "./piecewise_unmap.ts";

/** How many mappings ending a domain costs as much time as, besides its own. */
const DOMAIN_COST = 64;

/** The domains. */
export class EndingDomains {
  readonly #domains: Domain[] = [];
  /** The mappings of the last one on their way out. */
  #unmap: PiecewiseUnmap | undefined;

  /** How many there are. */
  get count(): number {
    return this.#domains.length;
  }

  /** Takes in a domain without endpoints. */
  add(domain: Domain): void {
    // The one whose mappings are being removed stays the last.
    if (this.#unmap === undefined) this.#domains.push(domain);
    else this.#domains.splice(-1, 0, domain);
  }

  /**
   * Gives back a bounded piece.
   *
   * @returns How many mappings went.
   */
  step(): number {
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
