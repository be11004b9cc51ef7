/**
 * Every value of every field of a device-table entry: QEMU's IOMMUs and our walker say the same of it, where QEMU
 * knows the field. `tests/pagetable/device_fields_test.ts` has what the specifications say.
 */
import { assert, assertEquals } from "@std/assert";
import { TableMemory, type WalkResult } from "../../pagetable/mod.ts";
import { labTests, type Qemu } from "../guest/lab/mod.ts";
import { FieldWorld, type Place, type Scenario } from "../pagetable/field_world.ts";
import { AMD_PLACE, AMD_SCENARIO } from "../pagetable/fields_amd.ts";
import { SMMU_PLACE, SMMU_SCENARIOS } from "../pagetable/fields_smmuv3.ts";
import { VTD_LEGACY, VTD_PLACE, VTD_SCALABLE } from "../pagetable/fields_vtd.ts";
import { Agreement } from "./agreement.ts";
import { amdBoard } from "./amd_judge.ts";
import { eduArguments } from "./edu.ts";
import { type Board, openEdus } from "./examination.ts";
import { prepareJudge, TableLoader } from "./judge.ts";
import { Qtest } from "./qtest.ts";
import { smmuBoard } from "./smmu_judge.ts";
import { legacyReason, vtdBoard } from "./vtd_judge.ts";

const SLOT = 4;

interface Trial {
  readonly board: Board;
  readonly scenario: Scenario;
  readonly place: Place;
  /** See `AgreementOptions`. */
  readonly codeOf?: (result: WalkResult, access: "r" | "w") => number;
}

/** Puts every value that QEMU can judge in front of it. */
async function agree(qemu: Qemu, { board, scenario, place, codeOf }: Trial): Promise<void> {
  await using machine = new Qtest(qemu, [...board.args, ...eduArguments(SLOT)]);
  const [edu] = await openEdus(machine, board, [SLOT]);
  const memory = new TableMemory(board.tables);
  const world = new FieldWorld(scenario, memory, { ...place, endpoint: edu.bdf });
  await new TableLoader(machine, memory).load();
  const judge = board.judge(machine);
  await judge.enable(world.unit.registers());
  const { unit } = world;
  const scratch = place.scratch;
  const options = { machine, judge, unit, scratch };
  const agreement = new Agreement(codeOf === undefined ? options : { ...options, codeOf });
  const wrong: string[] = [];
  await world.each(async ({ entry, field, value, address, word, before }) => {
    if (field.unlikeQemu?.(value) === true) return;
    const about = `${entry} ${field.name} ${field.high}:${field.low} = ${value}`;
    await machine.writeq(address, word);
    await judge.invalidateDevice?.(edu.bdf);
    await judge.invalidateAll();
    const untouched = place.frame * 4096;
    try {
      await agreement.ask({ edu, iova: place.page * 4096, access: "r", untouched, about });
    } catch (error) {
      // The machine is gone if even its fault records cannot be read.
      wrong.push((error instanceof Error ? error.message : String(error)).replaceAll(/\s+/g, " "));
      while (await judge.takeFault() !== undefined);
    }
    await machine.writeq(address, before);
  });
  assertEquals(wrong, []);
  assert(agreement.translated > 20 && agreement.refusals > 20);
}

await labTests(
  () => prepareJudge("aarch64"),
  Object.fromEntries((["1", "2", "nested"] as const).map((stages) => [
    `SMMUv3, stages ${stages}: QEMU and our walker agree on every value of every field of STE and CD`,
    (qemu: Qemu) =>
      agree(qemu, {
        board: smmuBoard(stages),
        scenario: SMMU_SCENARIOS[stages],
        place: SMMU_PLACE,
      }),
  ])),
);

await labTests(() => prepareJudge("x86_64"), {
  "AMD: QEMU and our walker agree on every value of every field of a device table entry": (qemu) =>
    agree(qemu, { board: amdBoard(), scenario: AMD_SCENARIO, place: AMD_PLACE }),
  "VT-d legacy mode: QEMU and our walker agree on every value of every field of the device tables":
    (
      qemu,
    ) => agree(qemu, { board: vtdBoard(",aw-bits=48"), scenario: VTD_LEGACY, place: VTD_PLACE }),
  "VT-d scalable mode, second stage: QEMU and our walker agree on every value of every field": (
    qemu,
  ) =>
    agree(qemu, {
      board: vtdBoard(",aw-bits=48,scalable-mode=on"),
      scenario: VTD_SCALABLE.second,
      place: VTD_PLACE,
      codeOf: legacyReason,
    }),
  "VT-d scalable mode, first stage: QEMU and our walker agree on every value of every field": (
    qemu,
  ) =>
    agree(qemu, {
      board: vtdBoard(",aw-bits=48,scalable-mode=on,fsts=on"),
      scenario: VTD_SCALABLE.first,
      place: VTD_PLACE,
      codeOf: legacyReason,
    }),
});
