/**
 * Every invalidation command of every family is legal and covers what changed, for any range up to the
 * widest, and for what the units note as endpoints come and go.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  amdDeviceCommands,
  amdTableCommands,
  type CommandBuffer,
  DEVICE_ENTRY,
  type HardwareTable,
  type InvalidationGather,
  NO_PASID,
  OK,
  smmuDeviceCommands,
  type SmmuQueueOptions,
  smmuStageOneCommands,
  smmuStageTwoCommands,
  TableMemory,
  type TranslationUnit,
  vtdDeviceCommands,
  vtdFirstStageCommands,
  vtdSecondStageCommands,
} from "../../pagetable/mod.ts";
import { AmdUnit } from "../../pagetable/units/amd.ts";
import { SmmuUnit } from "../../pagetable/units/smmuv3.ts";
import { VtdLegacyUnit } from "../../pagetable/units/vtd_legacy.ts";
import { VtdScalableUnit } from "../../pagetable/units/vtd_scalable.ts";
import {
  amdComplaint,
  amdCovers,
  type Command,
  type PageRange,
  smmuComplaint,
  smmuCovers,
  vtdComplaint,
  vtdCovers,
} from "./command_rules.ts";
import { makeTable } from "./table_words.ts";
import { commandsOf, gatherOf, WAIT } from "./gathers.ts";
import { isLong } from "../long_mode.ts";

/** Whether commands that cover `parts` together cover all of `range`. */
function covered(range: PageRange, parts: readonly (PageRange | null)[]): boolean {
  let next = range.first;
  const sorted = parts.filter((part) => part !== null);
  sorted.sort((a, b) => a.first < b.first ? -1 : a.first > b.first ? 1 : 0);
  for (const { first, last } of sorted) {
    if (first <= next && last >= next) next = last + 1n;
  }
  return next > range.last;
}

/** A range within `bits` bits of pages, of any order of magnitude, at any alignment. */
function anyRange(bits: number): fc.Arbitrary<readonly [number, number]> {
  const whole = 2 ** bits - 1;
  const number = fc.tuple(
    fc.integer({ min: 0, max: bits }),
    fc.double({ min: 0, max: 1, noNaN: true }),
  )
    .map(([order, part]) => Math.min(whole, Math.floor(part * 2 ** order)));
  return fc.oneof(
    fc.constant([0, whole] as const),
    fc.tuple(number, number).map(([first, pages]) =>
      [first, Math.min(whole, first + pages)] as const
    ),
    // A single page, and a power of two where it belongs.
    number.map((first) => [first, first] as const),
    fc.tuple(number, fc.integer({ min: 0, max: bits })).map(([at, order]) => {
      const first = at - at % 2 ** order;
      return [first, first + 2 ** order - 1] as const;
    }),
  );
}

/** A gather of up to 40 ranges, as it came from a table or with everything. */
function anyGather(
  bits: number,
): fc.Arbitrary<{ gather: InvalidationGather; ranges: PageRange[] }> {
  return fc.record({
    ranges: fc.array(anyRange(bits), { minLength: 1, maxLength: 40 }),
    tablesFreed: fc.boolean(),
    everything: fc.integer({ min: 0, max: 9 }),
  }).map(({ ranges, tablesFreed, everything }) => {
    const gather = gatherOf(ranges, tablesFreed);
    gather.everything = everything === 0;
    const noted = ranges.map(([first, last]) => ({ first: BigInt(first), last: BigInt(last) }));
    return { gather, ranges: noted };
  });
}

function checkCommands(
  list: readonly Command[],
  complaint: (command: Command) => string | null,
  covers: (command: Command) => PageRange | null,
  ranges: readonly PageRange[],
): void {
  const text = list.map(([head, body]) => `${head.toString(16)} ${body.toString(16)}`).join(", ");
  for (const command of list) assertEquals(complaint(command), null, text);
  const parts = list.map(covers);
  for (const range of ranges) {
    assert(covered(range, parts), `${range.first}-${range.last} by ${text}`);
  }
}

Deno.test("SMMUv3: one granule is no range, because TG with NUM, SCALE and TTL 0 is CERROR_ILL (SMMU §4.4.1.1)", () => {
  const options = { granuleBits: 12, ranges: true };
  const gather = gatherOf([[5, 5]]);
  // No TG in bits 11:10 of the second word.
  assertEquals(commandsOf((out) => smmuStageOneCommands(gather, 3, 0, options, out)), [
    [0x00030000_00000012n, 0x5001n],
    [0x46n, 0n],
  ]);
  const three = gatherOf([[7, 39]]);
  // 33 granules: one alone, then NUM 0, SCALE 5.
  assertEquals(commandsOf((out) => smmuStageOneCommands(three, 3, 0, options, out)), [
    [0x00030000_00000012n, 0x7001n],
    [0x00030000_00500012n, 0x8401n],
    [0x46n, 0n],
  ]);
});

Deno.test("SMMUv3: StreamIDs of 32 bits are named as they are", () => {
  const gather = gatherOf([]);
  gather.addDevice(DEVICE_ENTRY, 0xffff_fff0, NO_PASID, -1);
  const [first] = commandsOf((out) => smmuDeviceCommands(gather, out));
  assertEquals([first, gather.endpoints[0]], [[0xffff_fff0_0000_0003n, 1n], 0xffff_fff0]);
});

Deno.test("SMMUv3: the whole of 48 and 52 bits fits into commands (NUM 31, SCALE 31), in either stage", () => {
  for (const [granuleBits, pages] of [[12, 2 ** 36], [14, 2 ** 36], [16, 2 ** 40], [12, 2 ** 52]]) {
    for (const stageTwo of [false, true]) {
      const gather = gatherOf([[0, pages - 1]]);
      const options = { granuleBits, ranges: true };
      const list = commandsOf((out) =>
        stageTwo
          ? smmuStageTwoCommands(gather, 6, false, options, out)
          : smmuStageOneCommands(gather, 3, 0, options, out)
      );
      const range = { first: 0n, last: BigInt(pages) - 1n };
      checkCommands(list, smmuComplaint, (one) => smmuCovers(one, granuleBits), [range]);
      // What one command cannot say, not even 512 do: the tag is cheaper.
      if (pages === 2 ** 52) assertEquals(list[0][0] & 0xffn, stageTwo ? 0x28n : 0x11n);
    }
  }
});

Deno.test("SMMUv3: any ranges give legal commands that cover them, with and without range commands", () => {
  const options: fc.Arbitrary<SmmuQueueOptions> = fc.record({
    granuleBits: fc.constantFrom(12, 14, 16),
    ranges: fc.boolean(),
  });
  fc.assert(
    fc.property(anyGather(40), options, fc.boolean(), fc.boolean(), (made, queue, two, nested) => {
      const { gather, ranges } = made;
      const list = commandsOf((out) =>
        two
          ? smmuStageTwoCommands(gather, 0x1234, nested, queue, out)
          : smmuStageOneCommands(gather, 0x8765, nested ? 0x9abc : 0, queue, out)
      );
      checkCommands(list, smmuComplaint, (one) => smmuCovers(one, queue.granuleBits), ranges);
      if (two && nested) {
        assert(list.some(([head]) => (head & 0xffn) === 0x28n || (head & 0xffn) === 0x10n));
      }
    }),
    { numRuns: 500 },
  );
});

Deno.test("VT-d: any ranges give legal descriptors that cover them, with any MAMV", () => {
  const options = fc.record({
    maxMask: fc.integer({ min: 0, max: 52 }),
    pageSelective: fc.boolean(),
    scalable: fc.constant(true),
  });
  fc.assert(
    fc.property(anyGather(52), options, fc.boolean(), (made, queue, first) => {
      const { gather, ranges } = made;
      const all = { ...queue, ...WAIT };
      const list = commandsOf(
        (out) =>
          first
            ? vtdFirstStageCommands(gather, 0xfffe, 0xfffff, all, out)
            : vtdSecondStageCommands(gather, 0xfffe, all, out),
        32,
      );
      checkCommands(list, (one) => vtdComplaint(one, true, queue.maxMask), vtdCovers, ranges);
    }),
    { numRuns: 500 },
  );
});

Deno.test("AMD: any ranges give legal commands that cover them, up to 64 bits of addresses", () => {
  fc.assert(
    fc.property(anyGather(52), ({ gather, ranges }) => {
      const list = commandsOf((out) => amdTableCommands(gather, 0xffff, WAIT, out));
      checkCommands(list, amdComplaint, amdCovers, ranges);
    }),
    { numRuns: 500 },
  );
});

/** A way to change a unit: which endpoint, which table or pair of tables, which PASID, with which id. */
interface Change {
  readonly endpoint: number;
  readonly kind: "attach" | "nested" | "bypass" | "detach";
  readonly table: number;
  readonly pasid: number;
  readonly id: number;
}

const CHANGES: fc.Arbitrary<Change[]> = fc.array(
  fc.record({
    endpoint: fc.constantFrom(0, 1, 0x318, 0xffff),
    kind: fc.constantFrom("attach", "attach", "nested", "bypass", "detach"),
    table: fc.nat(3),
    pasid: fc.constantFrom(0, 0, 1, 70, 0x1fff),
    id: fc.integer({ min: 0, max: 3 }),
  }),
  { maxLength: 40 },
);

interface Family {
  readonly first: string;
  readonly second: string | null;
  readonly unit: (memory: TableMemory) => TranslationUnit;
  readonly commands: (gather: InvalidationGather, out: CommandBuffer) => void;
  readonly complaint: (command: Command) => string | null;
}

const FAMILIES: Readonly<Record<string, Family>> = {
  "SMMUv3": {
    first: "smmuv3-s1",
    second: "smmuv3-s2",
    unit: (memory) => new SmmuUnit(memory, { substreamBits: 15 }),
    commands: smmuDeviceCommands,
    complaint: smmuComplaint,
  },
  "VT-d legacy mode": {
    first: "vtd-ss",
    second: null,
    unit: (memory) => new VtdLegacyUnit(memory),
    commands: (gather, out) => vtdDeviceCommands(gather, WAIT, out),
    complaint: (command) => vtdComplaint(command, false, 18),
  },
  "VT-d scalable mode": {
    first: "vtd-fs",
    second: "vtd-ss",
    unit: (memory) => new VtdScalableUnit(memory),
    commands: (gather, out) => vtdDeviceCommands(gather, { ...WAIT, scalable: true }, out),
    complaint: (command) => vtdComplaint(command, true, 18),
  },
  "AMD": {
    first: "amdv1",
    second: null,
    unit: (memory) => new AmdUnit(memory),
    commands: (gather, out) => amdDeviceCommands(gather, WAIT, out),
    complaint: amdComplaint,
  },
};

/** Makes the changes; `watch` sees every batch of commands and, after each change and flush, the unit. */
function change(
  family: Family,
  changes: readonly Change[],
  watch: (list: readonly Command[]) => void,
  settled: (done: Change, status: number) => void,
): void {
  const memory = new TableMemory({ baseFrame: 0x1000, bytes: 16 * 2 ** 20 });
  const firsts = [0, 1, 2, 3].map(() => makeTable(family.first, memory));
  const { second } = family;
  const seconds = second === null ? [] : [0, 1].map(() => makeTable(second, memory));
  const unit = family.unit(memory);
  unit.gather.sink = {
    invalidate: (gather) => watch(commandsOf((out) => family.commands(gather, out), 32)),
  };
  for (const one of changes) {
    const { endpoint, kind, table, pasid, id } = one;
    const named = [endpoint, pasid === 0 ? undefined : pasid] as const;
    const domainId = id === 0 ? undefined : id;
    let status: number = OK;
    if (kind === "detach") unit.detach(...named);
    else if (kind === "bypass") status = unit.bypass(...named);
    else if (kind === "attach") status = unit.attach(endpoint, firsts[table], domainId, named[1]);
    else if (seconds.length > 0) {
      const below: HardwareTable = seconds[table % 2];
      status = unit.attachNested(endpoint, firsts[table], below, domainId, named[1]);
    }
    unit.gather.flush();
    settled(one, status);
  }
  unit.destroy();
}

for (const [name, family] of Object.entries(FAMILIES)) {
  Deno.test(`${name}: whatever happens to endpoints, every command about it is legal`, () => {
    let seen = 0;
    fc.assert(
      fc.property(CHANGES, (changes) => {
        change(family, changes, (list) => {
          for (const command of list) {
            const text = `${command[0].toString(16)} ${command[1].toString(16)}`;
            assertEquals(family.complaint(command), null, text);
            seen++;
          }
        }, () => {});
      }),
      { numRuns: isLong ? 100 : 40 },
    );
    // Not an empty statement: histories may be short, but not all of them.
    assert(seen > 10, `${seen} commands`);
  });
}

Deno.test("SMMUv3: a TLB never holds one table's translations under a tag that is another table's now", () => {
  // What stage 1 may have been cached under: ASID and VMID, and which table that was.
  fc.assert(
    fc.property(CHANGES, (changes) => {
      const cached = new Map<string, number>();
      const attached = new Map<string, number>();
      let walked: (() => void) | undefined;
      const family: Family = {
        ...FAMILIES["SMMUv3"],
        unit: (memory) => {
          const unit = new SmmuUnit(memory, { substreamBits: 15 });
          walked = () => readTags(unit, memory, attached);
          return unit;
        },
      };
      change(family, changes, (list) => {
        for (const [head] of list) {
          const asid = Number(head >> 48n);
          const vmid = Number((head >> 32n) & 0xffffn);
          for (const tag of [...cached.keys()]) {
            const [a, v] = tag.split("/").map(Number);
            const opcode = head & 0xffn;
            if (opcode === 0x30n) cached.delete(tag);
            if (opcode === 0x11n && a === asid && v === vmid) cached.delete(tag);
            if ((opcode === 0x28n || opcode === 0x10n) && v === vmid) cached.delete(tag);
          }
        }
      }, () => {
        attached.clear();
        walked?.();
        for (const [tag, root] of attached) {
          const before = cached.get(tag);
          assert(
            before === undefined || before === root,
            `${tag}: ${before} was cached, now ${root}`,
          );
          cached.set(tag, root);
        }
      });
    }),
    { numRuns: isLong ? 300 : 100 },
  );
});

/** The tags in use and the roots of their tables, read from the stream table and the context descriptors. */
function readTags(unit: SmmuUnit, memory: TableMemory, tags: Map<string, number>): void {
  const word = (frame: number, index: number): bigint =>
    memory.load(frame + (index >> 9), index & 511)
      ? BigInt(memory.high >>> 0) << 32n | BigInt(memory.low >>> 0)
      : 0n;
  const frameOf = (value: bigint): number => Number((value >> 12n) & 0xff_ffff_ffffn);
  const { strtab_base: base } = unit.registers();
  if (base === 0n) return;
  for (const stream of [0, 1, 0x318, 0xffff]) {
    const level2 = word(frameOf(base), stream >> 8);
    if (level2 === 0n) continue;
    const ste = (at: number): bigint => word(frameOf(level2), (stream & 255) * 8 + at);
    // Config with stage 1, in a valid STE.
    if ((ste(0) & 0xbn) !== 0xbn) continue;
    const vmid = Number(ste(2) & 0xffffn);
    for (const substream of [0, 1, 70, 0x1fff]) {
      const leaf = word(frameOf(ste(0)), substream >> 6);
      if ((leaf & 1n) === 0n) continue;
      const cd = (at: number): bigint => word(frameOf(leaf), (substream & 63) * 8 + at);
      if ((cd(0) & 1n << 31n) === 0n) continue;
      tags.set(`${Number(cd(0) >> 48n)}/${vmid}`, frameOf(cd(1)));
    }
  }
}
