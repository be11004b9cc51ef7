/**
 * The gaps between the areas of a tree, for automatic addresses.
 *
 * Inner slots keep the largest gap below them. A change of the tree makes those on its path unknown, and the next search
 * works them out again, so without automatic addresses they cost nothing.
 */
import { type AreaLeaves, NONE } from "./area_leaves.ts";
import { FANOUT, type InnerNodes, UNKNOWN } from "./inner_nodes.ts";

/** The gaps of one tree. Level 0 are the leaves. */
export class AreaGaps {
  readonly #leaves: AreaLeaves;
  readonly #inner: InnerNodes;

  /** Searches the nodes of one tree. */
  constructor(leaves: AreaLeaves, inner: InnerNodes) {
    this.#leaves = leaves;
    this.#inner = inner;
  }

  /**
   * The bottom of the lowest gap of at least `count` pages that starts right after an area, at `page` or above. Above
   * the last area the gap has no end. There is at least one area.
   */
  after(root: number, depth: number, page: number, count: number): number {
    this.#refresh(root, depth);
    const bottom = this.#searchGap(root, depth, page, count);
    return bottom !== NONE ? bottom : this.#highOf(root, depth) + 1;
  }

  #highOf(node: number, level: number): number {
    const leaves = this.#leaves;
    const inner = this.#inner;
    if (level === 0) return leaves.last(leaves.slotAt(node, leaves.size[node] - 1));
    return inner.high[node * FANOUT + inner.size[node] - 1];
  }

  /** Computes the unknown gaps below a node. */
  #refresh(node: number, level: number): void {
    if (level === 0) return;
    const inner = this.#inner;
    const base = node * FANOUT;
    for (let slot = base; slot < base + inner.size[node]; slot++) {
      if (inner.gap[slot] !== UNKNOWN) continue;
      const child = inner.child[slot];
      this.#refresh(child, level - 1);
      inner.low[slot] = level === 1
        ? this.#leaves.first(this.#leaves.slotAt(child, 0))
        : inner.low[child * FANOUT];
      inner.high[slot] = this.#highOf(child, level - 1);
      inner.gap[slot] = level === 1 ? this.#leafGap(child) : this.#innerGap(child);
    }
  }

  #leafGap(leaf: number): number {
    const leaves = this.#leaves;
    let gap = 0;
    for (let place = 1; place < leaves.size[leaf]; place++) {
      const slot = leaves.slotAt(leaf, place);
      gap = Math.max(gap, leaves.first(slot) - leaves.last(slot - 1) - 1);
    }
    return gap;
  }

  #innerGap(node: number): number {
    const inner = this.#inner;
    const base = node * FANOUT;
    let gap = inner.gap[base];
    for (let slot = base + 1; slot < base + inner.size[node]; slot++) {
      gap = Math.max(gap, inner.gap[slot], inner.low[slot] - inner.high[slot - 1] - 1);
    }
    return gap;
  }

  #searchGap(node: number, level: number, page: number, count: number): number {
    if (level === 0) return this.#searchLeaf(node, page, count);
    const inner = this.#inner;
    const base = node * FANOUT;
    const end = base + inner.size[node];
    for (let slot = base; slot < end; slot++) {
      const bottom = inner.high[slot] + 1;
      if (bottom < page) continue;
      if (inner.gap[slot] >= count) {
        const found = this.#searchGap(inner.child[slot], level - 1, page, count);
        if (found !== NONE) return found;
      }
      if (slot + 1 < end && inner.low[slot + 1] - bottom >= count) return bottom;
    }
    return NONE;
  }

  #searchLeaf(leaf: number, page: number, count: number): number {
    const leaves = this.#leaves;
    for (let place = 1; place < leaves.size[leaf]; place++) {
      const slot = leaves.slotAt(leaf, place);
      const bottom = leaves.last(slot - 1) + 1;
      if (bottom >= page && leaves.first(slot) - bottom >= count) return bottom;
    }
    return NONE;
  }
}
