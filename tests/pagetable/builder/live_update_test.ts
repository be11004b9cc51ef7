/**
 * Changing live STEs and CDs: whatever hardware reads in between is the old configuration, the new
 * one, or an invalid entry (SMMU §3.21).
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { TableMemory } from "../../../pagetable/mod.ts";
import {
  bypassSte,
  CD_ENTRY,
  contextDescriptor,
  invalidEntry,
  stageSte,
  STE_ENTRY,
} from "../../../pagetable/units/smmuv3_entries.ts";
import { type LiveEntry, updateLive } from "../../../pagetable/units/live_update.ts";
import { makeTable } from "../table_words.ts";

const memory = new TableMemory({ baseFrame: 0x1000, bytes: 2 ** 20 });
const first = makeTable("smmuv3-s1", memory);
const other = makeTable("smmuv3-s1", memory, { inputBits: 39, dirtyTracking: true });
const second = makeTable("smmuv3-s2", memory);
const wider = makeTable("smmuv3-s2", memory, { granule: 65536, outputBits: 48 });
const contexts = { frame: 0x77, format: 0, bits: 0 };
const many = { frame: 0x99, format: 1, bits: 10 };

/** An STE that aborts every access without an event. */
const ABORT = BigUint64Array.of(1n, 0n, 0n, 0n, 0n, 0n, 0n, 0n);

const STES: readonly (readonly [string, BigUint64Array])[] = [
  ["invalid", invalidEntry()],
  ["bypass", bypassSte()],
  ["abort", ABORT],
  ["stage 1", stageSte(contexts, null, 0)],
  ["stage 1 with substreams", stageSte(many, null, 0)],
  ["stage 2", stageSte(null, second, 3)],
  ["another stage 2", stageSte(null, wider, 4)],
  ["nested", stageSte(contexts, second, 3)],
];

const CDS: readonly (readonly [string, BigUint64Array])[] = [
  ["invalid", invalidEntry()],
  ["one table", contextDescriptor(first, 1)],
  ["the same under another ASID", contextDescriptor(first, 2)],
  ["another table", contextDescriptor(other, 3)],
];

/** What hardware makes of an entry: the bits that it uses, as text. */
function configuration(entry: LiveEntry, words: BigUint64Array): string {
  const mask = new BigUint64Array(words.length);
  entry.used(words, mask);
  return Array.from(words, (word, at) => (word & mask[at]).toString(16)).join(" ");
}

/** Every configuration seen while `from` becomes `to`, and how often hardware was synchronised. */
function watch(
  entry: LiveEntry,
  from: BigUint64Array,
  to: BigUint64Array,
): [Set<string>, number, number] {
  const words = BigUint64Array.from(from);
  const seen = new Set<string>();
  let stores = 0;
  let syncs = 0;
  updateLive(words, 0, to, entry, () => syncs++, (index, value) => {
    words[index] = value;
    stores++;
    seen.add(configuration(entry, words));
  });
  assertEquals(words, BigUint64Array.from(to));
  return [seen, syncs, stores];
}

for (const [kind, entry, entries] of [["STE", STE_ENTRY, STES], ["CD", CD_ENTRY, CDS]] as const) {
  Deno.test(`${kind}: every image on the way is old, new or invalid, for every pair of configurations`, () => {
    for (const [oldName, from] of entries) {
      for (const [newName, to] of entries) {
        const [seen, syncs, stores] = watch(entry, from, to);
        const legal = new Set(
          [from, to, invalidEntry()].map((words) => configuration(entry, words)),
        );
        for (const image of seen) assert(legal.has(image), `${oldName} -> ${newName}: ${image}`);
        assert(syncs >= 1, "hardware is told at least once");
        if (oldName === newName) assertEquals([stores, syncs], [0, 1]);
      }
    }
  });
}

Deno.test("changes that one store can make never pass through an invalid entry", () => {
  const hitless: readonly (readonly [BigUint64Array, BigUint64Array, LiveEntry])[] = [
    [bypassSte(), stageSte(contexts, null, 0), STE_ENTRY],
    [stageSte(contexts, null, 0), bypassSte(), STE_ENTRY],
    [ABORT, stageSte(null, second, 3), STE_ENTRY],
    [contextDescriptor(first, 1), contextDescriptor(first, 2), CD_ENTRY],
  ];
  for (const [from, to, entry] of hitless) {
    const [seen] = watch(entry, from, to);
    assert(!seen.has(configuration(entry, invalidEntry())));
  }
});

Deno.test("any valid bits in any words reach any others the same way", () => {
  const words = fc.array(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), {
    minLength: 8,
    maxLength: 8,
  });
  fc.assert(fc.property(words, words, (one, two) => {
    const from = BigUint64Array.from(one);
    const to = BigUint64Array.from(two);
    const [seen] = watch(STE_ENTRY, from, to);
    const cleared = BigUint64Array.from(from);
    cleared[0] &= ~1n;
    const legal = new Set([from, to, cleared].map((entry) => configuration(STE_ENTRY, entry)));
    for (const image of seen) assert(legal.has(image));
  }));
});
