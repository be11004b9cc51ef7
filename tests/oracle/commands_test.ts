/**
 * QEMU's IOMMUs take every invalidation command of ours: none is illegal, and each queue goes on.
 *
 * QEMU does not know SMMUv3's reserved range commands; `tests/pagetable/legal_commands_test.ts` does.
 */
import { assert, assertEquals } from "@std/assert";
import {
  amdDeviceCommands,
  amdTableCommands,
  type CommandBuffer,
  DEVICE_DIRECTORY,
  DEVICE_ENTRY,
  InvalidationGather,
  NO_PASID,
  PASID_ENTRY,
  smmuDeviceCommands,
  smmuStageOneCommands,
  smmuStageTwoCommands,
  TableMemory,
  vtdDeviceCommands,
  vtdSecondStageCommands,
} from "../../pagetable/mod.ts";
import { labTests, type Qemu } from "../guest/lab/mod.ts";
import { Random, seed } from "../guest/random.ts";
import { commandsOf } from "../pagetable/gathers.ts";
import { amdBoard, AmdJudge } from "./amd_judge.ts";
import { prepareJudge } from "./judge.ts";
import { Qtest } from "./qtest.ts";
import { smmuBoard, SmmuJudge } from "./smmu_judge.ts";
import { vtdBoard, VtdJudge } from "./vtd_judge.ts";

/** Batches of commands for each family. */
const BATCHES = 200;
/** Most commands of a batch: the queues have 128 or 256 entries. */
const MOST = 100;

/** A gather of a few ranges of any size within `bits` bits of pages, and of a few devices. */
function anyGather(random: Random, bits: number): InvalidationGather {
  const gather = new InvalidationGather(new TableMemory({ baseFrame: 0, bytes: 4096 }));
  const number = (): number => random.below(2 ** random.below(bits + 1));
  for (let ranges = random.below(4); ranges > 0; ranges--) {
    const first = number();
    gather.addRange(first, Math.min(first + number(), 2 ** bits - 1));
  }
  for (let devices = random.below(4); devices > 0; devices--) {
    const kind = random.pick([DEVICE_ENTRY, DEVICE_DIRECTORY]);
    gather.addDevice(kind, random.below(256), NO_PASID, random.pick([-1, 1, 0xfffe]));
  }
  gather.tablesFreed = random.below(2) === 0;
  gather.everything = random.below(10) === 0;
  gather.everyDevice = random.below(10) === 0;
  return gather;
}

type Fill = (gather: InvalidationGather, out: CommandBuffer) => void;
type Commands = readonly (readonly [bigint, bigint])[];

/** Gives random commands that `fills` make to `take`, batch by batch. */
async function giveCommands(
  fills: readonly Fill[],
  bits: number,
  take: (commands: Commands) => Promise<void>,
): Promise<void> {
  const random = new Random(seed());
  let given = 0;
  for (let batch = 0; batch < BATCHES; batch++) {
    const gather = anyGather(random, bits);
    for (const fill of fills) {
      const commands = commandsOf((out) => fill(gather, out));
      for (let at = 0; at < commands.length; at += MOST) await take(commands.slice(at, at + MOST));
      given += commands.length;
    }
  }
  assert(given > BATCHES, `${given} commands`);
}

async function giveToSmmu(qemu: Qemu): Promise<void> {
  const board = smmuBoard("nested");
  await using machine = new Qtest(qemu, board.args);
  const judge = board.judge(machine);
  assert(judge instanceof SmmuJudge);
  await judge.enable({ strtab_base: BigInt(board.tables.baseFrame) * 4096n, strtab_cfg: 8n });
  const contexts: Fill = (gather, out) => {
    gather.addDevice(PASID_ENTRY, 0x20, 0, 7, 3);
    smmuDeviceCommands(gather, out);
  };
  for (const granuleBits of [12, 14, 16]) {
    const queue = { granuleBits, ranges: true };
    const first: Fill = (gather, out) => smmuStageOneCommands(gather, 7, 3, queue, out);
    const second: Fill = (gather, out) => smmuStageTwoCommands(gather, 3, true, queue, out);
    await giveCommands([first, second, contexts], 32, (commands) => judge.submit(commands));
  }
}

async function giveToVtd(qemu: Qemu): Promise<void> {
  const board = vtdBoard(",aw-bits=48");
  await using machine = new Qtest(qemu, board.args);
  const judge = board.judge(machine);
  assert(judge instanceof VtdJudge);
  await judge.enable({ rtaddr: BigInt(board.tables.baseFrame) * 4096n });
  const queue = await judge.openQueue(0x20_0000);
  const wait = { statusAddress: board.scratch * 4096, statusData: 1 };
  const table: Fill = (gather, out) => vtdSecondStageCommands(gather, 9, wait, out);
  const devices: Fill = (gather, out) => vtdDeviceCommands(gather, wait, out);
  await giveCommands([table, devices], 36, (commands) => queue.submit(commands));
}

async function giveToAmd(qemu: Qemu): Promise<void> {
  const board = amdBoard();
  await using machine = new Qtest(qemu, board.args);
  const judge = board.judge(machine);
  assert(judge instanceof AmdJudge);
  await judge.enable({ devtab: BigInt(board.tables.baseFrame) * 4096n });
  const wait = { statusAddress: board.scratch * 4096, statusData: 1 };
  const table: Fill = (gather, out) => amdTableCommands(gather, 0xffff, wait, out);
  const devices: Fill = (gather, out) => amdDeviceCommands(gather, wait, out);
  await giveCommands([table, devices], 52, async (commands) => {
    await judge.submit(commands);
    // An illegal command is logged as event 5.
    assertEquals(await judge.takeFault(), undefined);
  });
}

await labTests(() => prepareJudge("aarch64"), {
  "SMMUv3: QEMU takes every invalidation command of ours": giveToSmmu,
});

await labTests(() => prepareJudge("x86_64"), {
  "VT-d: QEMU takes every invalidation descriptor of ours": giveToVtd,
  "AMD: QEMU takes every invalidation command of ours": giveToAmd,
});
