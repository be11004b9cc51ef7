/** Units that run out of table memory or of domain ids: nothing changes, nothing leaks, and later it works. */
import { assert, assertEquals } from "@std/assert";
import {
  createUnit,
  EINVAL,
  ENOMEM,
  OK,
  READ,
  TableMemory,
  type TranslationUnit,
  type UnitOptions,
} from "../../pagetable/mod.ts";
import { DomainIds } from "../../pagetable/units/domain_ids.ts";
import { faultOf, makeTable } from "./table_words.ts";

interface Subject {
  readonly name: string;
  readonly format: string;
  /** Format of the second stage, if there are two. */
  readonly second?: string;
  readonly pasid?: number;
  readonly options: UnitOptions;
}

const SUBJECTS: readonly Subject[] = [
  { name: "VT-d legacy mode", format: "vtd-ss", options: {} },
  { name: "VT-d scalable mode", format: "vtd-fs", options: {} },
  { name: "VT-d scalable mode, PASID", format: "vtd-fs", pasid: 0x1234, options: {} },
  { name: "VT-d, PASIDs of 20 bits", format: "vtd-fs", pasid: 2 ** 19, options: { pasidBits: 20 } },
  { name: "VT-d nested", format: "vtd-fs", second: "vtd-ss", options: {} },
  { name: "SMMUv3 stage 2", format: "smmuv3-s2", options: {} },
  { name: "SMMUv3, linear", format: "smmuv3-s1", options: { streamTable: "linear" } },
  { name: "SMMUv3, StreamIDs of 20 bits", format: "smmuv3-s1", options: { streamBits: 20 } },
  { name: "SMMUv3, SubstreamID", format: "smmuv3-s1", pasid: 99, options: { substreamBits: 8 } },
  { name: "SMMUv3 nested", format: "smmuv3-s1", second: "smmuv3-s2", options: {} },
  { name: "AMD", format: "amdv1", options: {} },
];

const SID = 0x318;
const DOMAIN = 5;

for (const { name, format, second, pasid, options } of SUBJECTS) {
  Deno.test(`${name}: without table memory an attachment changes nothing, whatever is missing`, () => {
    const tables = new TableMemory({ baseFrame: 0x80000, bytes: 2 ** 22 });
    const makePair = () => [format, second ?? format].map((each) => makeTable(each, tables));
    const pairs = [makePair(), makePair()];
    const attach = (unit: TranslationUnit, pair: number): number => {
      const [first, below] = pairs[pair];
      return second === undefined
        ? unit.attach(SID, first, DOMAIN, pasid)
        : unit.attachNested(SID, first, below, DOMAIN, pasid);
    };
    const probe = new TableMemory({ baseFrame: 0x1000, bytes: 2 ** 24 });
    assertEquals(attach(createUnit(format, probe, options), 0), OK);
    const needed = probe.used;
    // A few of the pages, or all but a few: what lies between is one block, a stream table or a device table.
    const few = Array.from({ length: Math.min(needed, 16) }, (_, at) => at);
    for (const left of new Set([...few, ...few.map((missing) => needed - 1 - missing)])) {
      const memory = new TableMemory({ baseFrame: 0x1000, bytes: 2 ** 24, limitPages: needed });
      const unit = createUnit(format, memory, options);
      const filler = Array.from({ length: needed - left }, () => memory.allocate(0));
      const before = faultOf(unit, SID, 0, READ, pasid);
      assertEquals(attach(unit, 0), ENOMEM, `${left} of ${needed} pages`);
      unit.gather.flush();
      // Tables above may have been made: the reason of the fault may be another one, but it is one.
      assert(before !== "ok" && faultOf(unit, SID, 0, READ, pasid) !== "ok");
      for (const page of filler) memory.free(page, 0);
      // The domain id of the table that failed is free for another one.
      assertEquals(attach(unit, 1), OK, `after ${left} of ${needed} pages`);
      unit.destroy();
      assertEquals([memory.used, unit.tablePages], [0, 0]);
    }
  });
}

Deno.test("domain ids run out, are refused where they are another table's, and come back", () => {
  const memory = new TableMemory({ baseFrame: 0x1000, bytes: 2 ** 20 });
  const [one, two, three] = [0, 1, 2].map(() => makeTable("vtd-ss", memory));
  const ids = new DomainIds(1, 2);
  assertEquals([ids.take(one, 2), ids.idOf(one)], [OK, 2]);
  assertEquals([ids.take(two, 2), ids.take(two, 3), ids.take(two, 0)], [EINVAL, EINVAL, EINVAL]);
  assertEquals([ids.take(two, -1), ids.idOf(two)], [EINVAL, -1]);
  assertEquals([ids.take(two, undefined), ids.idOf(two)], [OK, 1]);
  assertEquals(ids.take(three, undefined), ENOMEM);
  assertEquals([ids.take(one, 1), ids.take(one, undefined)], [EINVAL, OK]);
  ids.release(2);
  assertEquals(ids.take(three, undefined), ENOMEM);
  ids.release(2);
  assertEquals([ids.take(three, undefined), ids.idOf(three), ids.idOf(one)], [OK, 2, -1]);
});
