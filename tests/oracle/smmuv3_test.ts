/**
 * QEMU's SMMUv3 translates DMA through tables of ours, and faults, as our walker says.
 */
import { READ, STAGE_ONE, WRITE } from "../../pagetable/mod.ts";
import { labTests, type Qemu } from "../guest/lab/mod.ts";
import type { Corruption } from "./corruption.ts";
import { examine, variants } from "./examination.ts";
import { prepareJudge } from "./judge.ts";
import { smmuBoard } from "./smmu_judge.ts";

/** QEMU's SMMU has 44 bits of physical addresses, no SubstreamIDs and does not set access flags or dirty state. */
const CAPABILITIES = { addressBits: 44, substreamBits: 0, updates: false };

/** Wrong bits that QEMU's SMMU is known not to see, with tables of a granule. */
function blindTo(granule: number): (corruption: Corruption) => boolean {
  return ({ bit, stage, level }) =>
    // Whether stage 1 permits unprivileged accesses: AP[1] in leaves, APTable[0] in tables.
    (stage === STAGE_ONE && (bit === 6 || bit === 61)) ||
    // A block where the granule has none: QEMU takes it for one.
    (bit === 1 && level < (granule === 4096 ? 1 : 2)) ||
    // Address bits 51:48 in bits 15:12 of a 64 KiB granule: QEMU has no such addresses.
    (granule === 65536 && bit >= 12 && bit <= 15);
}

interface Case {
  readonly stage: "1" | "2";
  readonly granule: number;
  readonly inputBits: number;
  readonly streamTable?: "linear" | "2-level";
  /** See `Examination`. */
  readonly beyond?: readonly number[];
}

function agreeOn(one: Case): (qemu: Qemu) => Promise<void> {
  const { stage, granule, inputBits, streamTable, beyond } = one;
  return (qemu) =>
    examine(qemu, {
      board: smmuBoard(stage),
      format: `smmuv3-s${stage}`,
      table: { granule, inputBits, outputBits: 44 },
      unit: { capabilities: CAPABILITIES, streamTable: streamTable ?? "2-level" },
      ...(beyond === undefined ? {} : { beyond }),
      wrongBits: blindTo(granule),
      protections: stage === "1" ? [READ, READ | WRITE] : [READ, WRITE, READ | WRITE],
    });
}

/** Stage 1 of 39 bits, then a stage 2 of 40 bits, with different granules where asked for. */
function agreeOnNested(granule: number, secondGranule: number): (qemu: Qemu) => Promise<void> {
  return (qemu) =>
    examine(qemu, {
      board: smmuBoard("nested"),
      format: "smmuv3-s1",
      table: { granule, inputBits: 39, outputBits: 44 },
      second: {
        format: "smmuv3-s2",
        table: { granule: secondGranule, inputBits: 39, outputBits: 44 },
      },
      unit: { capabilities: CAPABILITIES },
      wrongBits: blindTo(granule),
      protections: [READ, READ | WRITE],
    });
}

const ALWAYS = {
  "SMMUv3 stage 1, 4 KiB granule, 48 bits: QEMU and our walker agree on every access": agreeOn({
    stage: "1",
    granule: 4096,
    inputBits: 48,
  }),
  "SMMUv3 stage 1, 64 KiB granule, 42 bits, linear stream table: QEMU and our walker agree":
    agreeOn({
      stage: "1",
      granule: 65536,
      inputBits: 42,
      streamTable: "linear",
    }),
  "SMMUv3 stage 2, 4 KiB granule, 39 bits: QEMU and our walker agree on every access": agreeOn({
    stage: "2",
    granule: 4096,
    inputBits: 39,
  }),
  "SMMUv3 both stages: QEMU and our walker agree on every access": agreeOnNested(4096, 4096),
};

const IN_FULL = {
  "SMMUv3 stage 1, 4 KiB granule, 39 bits: QEMU and our walker agree on every access": agreeOn({
    stage: "1",
    granule: 4096,
    inputBits: 39,
  }),
  "SMMUv3 stage 1, 16 KiB granule, 47 bits: QEMU and our walker agree on every access": agreeOn({
    stage: "1",
    granule: 16384,
    inputBits: 47,
  }),
  "SMMUv3 stage 2, 4 KiB granule, 44 bits: QEMU and our walker agree on every access": agreeOn({
    stage: "2",
    granule: 4096,
    inputBits: 44,
    // QEMU blocks intermediate addresses above its own address size without an event.
    beyond: [],
  }),
  "SMMUv3 stage 2, 16 KiB granule, 36 bits: QEMU and our walker agree on every access": agreeOn({
    stage: "2",
    granule: 16384,
    inputBits: 36,
  }),
  "SMMUv3 stage 2, 64 KiB granule, 42 bits: QEMU and our walker agree on every access": agreeOn({
    stage: "2",
    granule: 65536,
    inputBits: 42,
  }),
  "SMMUv3 both stages, 64 KiB then 4 KiB granule: QEMU and our walker agree on every access":
    agreeOnNested(65536, 4096),
};

await labTests(() => prepareJudge("aarch64"), variants(ALWAYS, IN_FULL));
