/**
 * Every value of every field of a device-table entry means what the specification says: reserved values, reserved
 * bits, ignored fields, and what needs hardware that there is not.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { TableMemory } from "../../pagetable/mod.ts";
import { AMD_PLACE, AMD_SCENARIO } from "./fields_amd.ts";
import { FieldWorld, type Place, type Scenario } from "./field_world.ts";
import { SMMU_PLACE, SMMU_SCENARIOS, SUBSTREAM_SCENARIOS } from "./fields_smmuv3.ts";

import { VTD_LEGACY, VTD_PLACE, VTD_SCALABLE } from "./fields_vtd.ts";

async function judge(scenario: Scenario, place: Place, baseFrame: number): Promise<void> {
  const memory = new TableMemory({ baseFrame, bytes: 64 * 2 ** 20 });
  const world = new FieldWorld(scenario, memory, place);
  assertEquals(world.ask(), scenario.begins ?? "ok");
  const wrong: string[] = [];
  let judged = 0;
  await world.each(({ entry, field, value }) => {
    const found = world.ask();
    const expected = field.rule(value);
    judged++;
    if (found !== expected) {
      wrong.push(
        `${entry} ${field.name} ${field.high}:${field.low} = ${value}: ${found}, not ${expected}`,
      );
    }
  });
  assertEquals(wrong, []);
  assert(judged > 0);
  assertEquals(world.ask(), scenario.begins ?? "ok");
}

for (const [stages, scenario] of Object.entries(SMMU_SCENARIOS)) {
  Deno.test(`SMMUv3, stages ${stages}: every value of every field means what IHI 0070 says`, () =>
    judge(scenario, SMMU_PLACE, 0x4_1000));
}

for (const [name, scenario] of Object.entries(SUBSTREAM_SCENARIOS)) {
  Deno.test(`SMMUv3, ${name}: every value of every field means what IHI 0070 says`, () =>
    judge(scenario, SMMU_PLACE, 0x4_1000));
}

Deno.test("AMD: every value of every field of a device table entry means what 48882 says", () =>
  judge(AMD_SCENARIO, AMD_PLACE, 0x1000));

Deno.test("VT-d legacy mode: every value of every field of root and context entries means what the specification says", () =>
  judge(VTD_LEGACY, VTD_PLACE, 0x1000));

for (const [stage, scenario] of Object.entries(VTD_SCALABLE)) {
  Deno.test(`VT-d scalable mode, ${stage} stage: every value of every field means what the specification says`, () =>
    judge(scenario, VTD_PLACE, 0x1000));
}
