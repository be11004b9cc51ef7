/**
 * QEMU's VT-d translates DMA through tables of ours, and faults, as our walker says.
 *
 * Where QEMU 11.1 differs from the specification, the difference has a name and a reason here.
 */
import { READ, STAGE_ONE, type WalkResult, WRITE } from "../../pagetable/mod.ts";
import { labTests, type Qemu } from "../guest/lab/mod.ts";
import { examine, variants } from "./examination.ts";
import { prepareJudge } from "./judge.ts";
import { legacyReason, vtdBoard } from "./vtd_judge.ts";

/**
 * QEMU looks whether an entry permits a write before it looks at the entry's reserved bits; VT-d §7.1.3 leaves
 * the order of reasons within one entry to hardware.
 */
function firstStageReason(result: WalkResult, access: "r" | "w"): number {
  if (result.faultName === "reserved-bits" && access === "w") {
    for (let step = 0; step < result.depth; step++) {
      const paging = result.pathStage[step] === STAGE_ONE;
      if (paging && (result.pathLow[step] & 2) === 0) return 0x85;
    }
  }
  return legacyReason(result, access);
}

type Examinations = Readonly<Record<string, (qemu: Qemu) => Promise<void>>>;

const ALWAYS: Examinations = {
  "VT-d legacy mode, 4 levels: QEMU and our walker agree on every access": (qemu) =>
    examine(qemu, {
      wrongBits: () => false,
      board: vtdBoard(",aw-bits=48"),
      format: "vtd-ss",
      table: { levels: 4 },
      unit: { addressBits: 48, inputBits: 48 },
    }),
  "VT-d scalable mode, second stage: QEMU and our walker agree on every access": (qemu) =>
    examine(qemu, {
      wrongBits: () => false,
      board: vtdBoard(",aw-bits=48,scalable-mode=on"),
      format: "vtd-ss",
      table: { levels: 4 },
      unit: { mode: "scalable", addressBits: 48, inputBits: 48, ridPasid: false },
      codeOf: legacyReason,
    }),
  "VT-d scalable mode, first stage: QEMU and our walker agree on every access": (qemu) =>
    examine(qemu, {
      wrongBits: () => false,
      board: vtdBoard(",aw-bits=48,scalable-mode=on,fsts=on"),
      format: "vtd-fs",
      table: { levels: 4 },
      unit: { mode: "scalable", addressBits: 48, inputBits: 48, ridPasid: false },
      protections: [READ, READ | WRITE],
      codeOf: firstStageReason,
    }),
};

const IN_FULL: Examinations = {
  "VT-d legacy mode, 3 levels: QEMU and our walker agree on every access": (qemu) =>
    examine(qemu, {
      wrongBits: () => false,
      board: vtdBoard(",aw-bits=39"),
      format: "vtd-ss",
      table: { levels: 3 },
      unit: { addressBits: 39, inputBits: 39, bypassAddressWidth: 1 },
    }),
};

await labTests(() => prepareJudge("x86_64"), variants(ALWAYS, IN_FULL));
