/** The model of the page: the device that it drives, flipped bits, and what refuses an access. */
import { assert, assertEquals } from "@std/assert";
import { MAP_F_READ, MAP_F_WRITE } from "../../../../device/iommu/mod.ts";
import { describePath, READ, WRITE } from "../../../../pagetable/mod.ts";
import { faultText } from "../../../../device/web/page/fault_text.ts";
import { ENDPOINTS, Playground } from "../../../../device/web/page/playground.ts";
import { refusingBits } from "../../../../device/web/page/refusing_bits.ts";

const READ_ONLY = {
  domain: 1,
  virtStart: 0x20_0000n,
  virtEnd: 0x5f_ffffn,
  physStart: 0x40_0000n,
  flags: MAP_F_READ,
};

/** A playground whose endpoints are all attached to domain 1, with one mapping that may only be read. */
function mapped(): Playground {
  const playground = new Playground();
  for (const { id } of ENDPOINTS) assert(playground.attach(1, id).ok);
  assert(playground.map(READ_ONLY).ok);
  return playground;
}

/** Names of the fields that refusing bits are in, as far as `describePath` names them when they alone are set. */
function refusing(playground: Playground, endpoint: number, page: number, access: number) {
  return refusingBits(playground, endpoint, page, access).map(({ entry, bit }) => {
    const walk = playground.walk(endpoint, page, access);
    return { table: describePath(ENDPOINTS[endpoint / 8 - 1].format, walk)[entry].table, bit };
  });
}

Deno.test("one MAP stands in the tables of every format", () => {
  const playground = mapped();
  for (const { id, format } of ENDPOINTS) {
    const walk = playground.walk(id, 0x201, READ);
    assertEquals([walk.ok, walk.frame], [true, 0x401], format);
    assertEquals(playground.walk(id, 0x201, WRITE).faultName, "no-write", format);
  }
  assertEquals(playground.mappings(1), [{
    first: 0x200,
    last: 0x5ff,
    frame: 0x400,
    protection: READ,
  }]);
  playground.close();
});

Deno.test("a refused request names the statement that it breaks", () => {
  const playground = mapped();
  const line = playground.map(READ_ONLY);
  assertEquals([line.ok, line.answer], [false, "INVAL"]);
  assert(line.reason.includes("statement M2 of"), line.reason);
  assertEquals(playground.unmap(1, 0x20_0000n, 0x2f_ffffn).answer, "RANGE");
  assertEquals(playground.unmap(1, 0x20_0000n, 0x5f_ffffn).answer, "OK");
  assertEquals(playground.mappings(1), []);
  assertEquals(playground.detach(1, ENDPOINTS[0].id).answer, "OK");
  assertEquals(playground.domainOf(ENDPOINTS[0].id), undefined);
  playground.close();
});

Deno.test("the bits that refuse a write are those that permit it", () => {
  const playground = mapped();
  // VT-d 9.8: bit 1 is W. Arm D8.3, stage 1: bit 7 is AP[2], read-only. AMD 2.2.3: bit 62 is IW. VT-d 9.7: bit 1 is R/W.
  // Arm D8.3, stage 2: bit 7 is S2AP[1].
  const expected: Readonly<Record<string, { table: string; bit: number }>> = {
    "vtd-ss": { table: "L2", bit: 1 },
    "smmuv3-s1": { table: "L2", bit: 7 },
    "amdv1": { table: "L2", bit: 62 },
    "vtd-fs": { table: "L2", bit: 1 },
    "smmuv3-s2": { table: "L2", bit: 7 },
  };
  for (const { id, format } of ENDPOINTS) {
    assertEquals(refusing(playground, id, 0x201, WRITE), [expected[format]], format);
    assertEquals(refusingBits(playground, id, 0x201, READ), [], format);
  }
  assertEquals(playground.flipped, []);
  playground.close();
});

Deno.test("an access to what is not mapped is refused by the bits that say present", () => {
  const playground = mapped();
  // VT-d 9.8: present is what R or W permits. Arm D8.3: bit 0. AMD 2.2.3: PR. VT-d 9.7: P.
  const expected: Readonly<Record<string, readonly number[]>> = {
    "vtd-ss": [0, 1],
    "smmuv3-s1": [0],
    "amdv1": [0],
    "vtd-fs": [0],
    "smmuv3-s2": [0],
  };
  for (const { id, format } of ENDPOINTS) {
    const bits = refusing(playground, id, 0x800, READ);
    assertEquals(bits.map(({ bit }) => bit), expected[format], format);
  }
  playground.close();
});

Deno.test("a flipped bit changes what hardware says until the next request", () => {
  const playground = mapped();
  const [vtd] = ENDPOINTS;
  const walk = playground.walk(vtd.id, 0x201, READ);
  const root = walk.entryAddress(0);
  assertEquals(playground.dma(vtd.id, 0x20_1000n, READ).ok, true);
  playground.flip(root, 0);
  assertEquals(playground.flipped, [{ at: root, bit: 0 }]);
  const refused = playground.walk(vtd.id, 0x201, READ);
  assertEquals(refused.faultName, "root-not-present");
  const line = playground.dma(vtd.id, 0x20_1000n, READ);
  assertEquals([line.ok, line.answer], [false, "fault: root-not-present (0x1)"]);
  assertEquals(refusing(playground, vtd.id, 0x201, READ), [{ table: "root", bit: 0 }]);
  const more = { ...READ_ONLY, virtStart: 0x80_0000n, virtEnd: 0x80_0fffn };
  assert(playground.map({ ...more, flags: MAP_F_READ | MAP_F_WRITE }).ok);
  assertEquals(playground.flipped, []);
  assert(playground.walk(vtd.id, 0x201, READ).ok);
  playground.close();
});

Deno.test("every reason that a flipped bit of a path gives has words and sections", () => {
  const playground = mapped();
  const seen = new Set<string>();
  for (const { id, format } of ENDPOINTS) {
    const { depth } = playground.walk(id, 0x201, READ);
    for (let entry = 0; entry < depth; entry++) {
      playground.walk(id, 0x201, READ);
      const at = playground.walk(id, 0x201, READ).entryAddress(entry);
      for (let bit = 0; bit < 64; bit++) {
        playground.flip(at, bit);
        const walk = playground.walk(id, 0x201, READ);
        if (!walk.ok) {
          const stage = walk.depth === 0 ? undefined : walk.pathStage[walk.depth - 1];
          const { text, sections } = faultText(format, walk.faultName, walk.faultCode, stage);
          assert(text !== walk.faultName, `no words for ${walk.faultName}`);
          assert(!sections.includes("undefined"), `${format} ${walk.faultName}`);
          seen.add(walk.faultName);
        }
        playground.flip(at, bit);
      }
    }
  }
  assert(seen.has("not-present") && seen.has("reserved-bits") && seen.has("table-unreadable"));
  playground.close();
});
