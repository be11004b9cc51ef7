/**
 * QEMU's emulated SMMUv3, programmed through its registers and queues (SMMU §3.5, §4, §6.3, §7).
 *
 * @module
 */
import type { Board } from "./examination.ts";
import type { Judge, RecordedFault } from "./judge.ts";
import { windowConfigSpace } from "./pci.ts";
import type { Qtest } from "./qtest.ts";

/** Where the `virt` machine has its registers, its PCI configuration space and its PCI memory window. */
const BASE = 0x0905_0000;
const CONFIG_WINDOW = 0x3f00_0000;
const PCI_WINDOW = 0x1000_0000;

const CR0 = BASE + 0x20;
const CR0_ACK = BASE + 0x24;
const CR1 = BASE + 0x28;
const STREAM_TABLE = BASE + 0x80;
const STREAM_TABLE_CONFIG = BASE + 0x88;
const COMMANDS = BASE + 0x90;
const COMMAND_PRODUCER = BASE + 0x98;
const COMMAND_CONSUMER = BASE + 0x9c;
const EVENTS = BASE + 0xa0;
const EVENT_PRODUCER = BASE + 0x1_00a8;
const EVENT_CONSUMER = BASE + 0x1_00ac;

const SMMU_ENABLE = 1 << 0;
const EVENTS_ENABLE = 1 << 2;
const COMMANDS_ENABLE = 1 << 3;

/** Both queues: 2^7 entries, the commands of 16 bytes, the events of 32, and where in RAM they are. */
const QUEUE_BITS = 7;
const COMMAND_QUEUE = 0x4010_0000;
const EVENT_QUEUE = 0x4011_0000;
/** An index with the wrap bit above it. */
const INDEX_MASK = 2 ** (QUEUE_BITS + 1) - 1;

/** Commands (SMMU §4.3 to §4.7): drop all configuration, all stage-1 and all stage-2 translations, and wait. */
const CFGI_ALL: Command = [0x04n, 31n];
const TLBI_NSNH_ALL: Command = [0x30n, 0n];
const SYNC: Command = [0x46n, 0n];

/** The two words of a command. */
export type Command = readonly [bigint, bigint];

/** An ARM board with an SMMU that has the stages `1`, `2` or `nested`. */
export function smmuBoard(stage: "1" | "2" | "nested"): Board {
  return {
    args: [
      "-M",
      "virt,iommu=smmuv3,highmem-ecam=off,gic-version=3",
      "-global",
      `arm-smmuv3.stage=${stage}`,
      "-m",
      "4G",
    ],
    tables: { baseFrame: 0x4_1000, bytes: 128 << 20 },
    ram: [{ first: 0x5_0000, last: 0x13_ffff }],
    scratch: 0x4_0800,
    registers: PCI_WINDOW,
    config: (machine) => windowConfigSpace(machine, CONFIG_WINDOW),
    judge: (machine) => new SmmuJudge(machine, stage),
  };
}

/** The SMMU. */
export class SmmuJudge implements Judge {
  /** Observed of stage 2 alone; the specification has it record every fault (SMMU §7.2). */
  readonly forgetsRefusals: boolean;

  readonly #machine: Qtest;
  #commands = 0;
  #events = 0;

  constructor(machine: Qtest, stage: "1" | "2" | "nested") {
    this.#machine = machine;
    this.forgetsRefusals = stage !== "1";
  }

  async enable(registers: Readonly<Record<string, bigint>>): Promise<void> {
    const machine = this.#machine;
    await machine.writel(CR1, 0);
    await machine.writeq(STREAM_TABLE, registers.strtab_base);
    await machine.writel(STREAM_TABLE_CONFIG, Number(registers.strtab_cfg));
    await machine.writeq(COMMANDS, BigInt(COMMAND_QUEUE + QUEUE_BITS));
    await machine.writel(COMMAND_PRODUCER, 0);
    await machine.writel(COMMAND_CONSUMER, 0);
    await machine.writeq(EVENTS, BigInt(EVENT_QUEUE + QUEUE_BITS));
    await machine.writel(EVENT_PRODUCER, 0);
    await machine.writel(EVENT_CONSUMER, 0);
    const enable = SMMU_ENABLE | EVENTS_ENABLE | COMMANDS_ENABLE;
    await machine.writel(CR0, enable);
    const acknowledged = await machine.readl(CR0_ACK);
    if ((acknowledged & enable) !== enable) {
      throw new Error(`Cannot enable the SMMU: CR0ACK is 0x${acknowledged.toString(16)}`);
    }
    await this.invalidateAll();
  }

  async invalidateAll(): Promise<void> {
    await this.submit([CFGI_ALL, TLBI_NSNH_ALL]);
  }

  /** Hands over commands and waits until the SMMU has done them. */
  async submit(commands: readonly Command[]): Promise<void> {
    const machine = this.#machine;
    const writes: Promise<void>[] = [];
    for (const [low, high] of [...commands, SYNC]) {
      const at = COMMAND_QUEUE + (this.#commands % 2 ** QUEUE_BITS) * 16;
      this.#commands = (this.#commands + 1) & INDEX_MASK;
      writes.push(machine.writeq(at, low), machine.writeq(at + 8, high));
      writes.push(machine.writel(COMMAND_PRODUCER, this.#commands));
    }
    await Promise.all(writes);
    const consumed = await machine.readl(COMMAND_CONSUMER);
    if (consumed !== this.#commands) {
      throw new Error(`Cannot command the SMMU: CMDQ_CONS is 0x${consumed.toString(16)}`);
    }
  }

  async takeFault(): Promise<RecordedFault | undefined> {
    const machine = this.#machine;
    const produced = await machine.readl(EVENT_PRODUCER);
    if ((produced & INDEX_MASK) === this.#events) return undefined;
    const at = EVENT_QUEUE + (this.#events % 2 ** QUEUE_BITS) * 32;
    const [first, second, input] = await Promise.all([
      machine.readq(at),
      machine.readq(at + 8),
      machine.readq(at + 16),
    ]);
    this.#events = (this.#events + 1) & INDEX_MASK;
    await machine.writel(EVENT_CONSUMER, this.#events);
    const code = Number(first & 0xffn);
    const record = { code, endpoint: Number(first >> 32n) };
    // Events about the stream's configuration say neither where nor how it was accessed.
    if (code < TRANSLATION_EVENTS) return record;
    return { ...record, page: Number(input >> 12n), write: ((second >> 35n) & 1n) === 0n };
  }
}

/** Events from here on are about an address (SMMU §7.3.12 on). */
const TRANSLATION_EVENTS = 0x10;
