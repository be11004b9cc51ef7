/** What the scenarios of the kernel's own iommufd tests have in common. README.md has the table of all of them. */
import { assertEquals } from "@std/assert";
import { OK } from "../../iommufd/mod.ts";
import { onBothSorts, Rig, type RigOptions } from "./rig.ts";

/** First page that the page tables translate. */
export const S = 0x1000;
/** Last page that they translate. */
export const LAST = 0x7ffff;

/** A way to run a scenario. */
export interface Variant {
  readonly name: string;
  readonly tables: number;
  readonly base: number;
  readonly options: RigOptions;
}

/** No page table. */
export const ND: Variant = { name: "ND", tables: 0, base: 1, options: {} };
/** One page table. */
export const D1: Variant = { name: "D1", tables: 1, base: S, options: {} };
/** Two page tables. */
export const D2: Variant = { name: "D2", tables: 2, base: S, options: {} };
/** One page table, with batches of one run and two pages pinned at a time. */
export const D1L: Variant = {
  name: "D1L",
  tables: 1,
  base: S,
  options: { slots: 1, chunkPages: 2 },
};
/** All of them. */
export const ALL: readonly Variant[] = [ND, D1, D2, D1L];

/** A rig with one address space and the page tables of a variant. */
export function rigOf(variant: Variant, frames: readonly number[], more: RigOptions = {}): Rig {
  const rig = new Rig(frames, { ...variant.options, ...more });
  const space = rig.space();
  for (let at = 0; at < variant.tables; at++) {
    assertEquals(space.addPageTable(rig.table({ firstPage: S, lastPage: LAST })), OK);
  }
  return rig;
}

/** A test in every one of `variants`, over both sorts of sources. */
export function scenario(
  name: string,
  variants: readonly Variant[],
  run: (variant: Variant) => void,
): void {
  for (const variant of variants) onBothSorts(`${name} [${variant.name}]`, () => run(variant));
}
