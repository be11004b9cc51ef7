/**
 * QEMU's emulated AMD IOMMU, programmed through its registers and buffers (AMD IOMMU specification §2.4, §2.5, §3.4).
 *
 * @module
 */
import type { Board } from "./examination.ts";
import type { Judge, RecordedFault } from "./judge.ts";
import { portConfigSpace } from "./pci.ts";
import type { Qtest } from "./qtest.ts";

const BASE = 0xfed8_0000;

const DEVICE_TABLE = BASE + 0x00;
const COMMANDS = BASE + 0x08;
const EVENTS = BASE + 0x10;
const CONTROL = BASE + 0x18;
const COMMAND_HEAD = BASE + 0x2000;
const COMMAND_TAIL = BASE + 0x2008;
const EVENT_HEAD = BASE + 0x2010;
const EVENT_TAIL = BASE + 0x2018;

const IOMMU_ENABLE = 1n << 0n;
const EVENTS_ENABLE = 1n << 2n;
const COMMANDS_ENABLE = 1n << 12n;

/** Both buffers: 256 entries of 16 bytes, one page. */
const BUFFER_BYTES = 4096;
const COMMAND_BUFFER = 0x30_0000;
const EVENT_BUFFER = 0x31_0000;
const LENGTH_256 = 8n << 56n;

/** Drops everything the IOMMU holds: all device table entries and all pages of all domains (§2.4.8). */
const INVALIDATE_ALL: Command = [8n << 60n, 0n];
/** Drops the device table entry of the device in bits 15:0 (§2.4.2). */
const INVALIDATE_DEVICE = 2n << 60n;
/** Waits for the commands before it (§2.4.1). */
const COMPLETION_WAIT: Command = [1n << 60n, 0n];

type Command = readonly [bigint, bigint];

/** A PC with the IOMMU. */
export function amdBoard(): Board {
  return {
    args: [
      "-M",
      "q35,kernel-irqchip=off",
      "-m",
      "4G",
      "-device",
      "amd-iommu,intremap=off,dma-remap=on",
    ],
    tables: { baseFrame: 0x1000, bytes: 64 << 20 },
    ram: [{ first: 0x8000, last: 0x7_ffff }, { first: 0x10_0000, last: 0x17_ffff }],
    scratch: 0x7000,
    registers: 0xe000_0000,
    config: portConfigSpace,
    judge: (machine) => new AmdJudge(machine),
  };
}

/** The IOMMU. */
export class AmdJudge implements Judge {
  /** Observed; the specification has it log every fault (§2.5). */
  readonly forgetsRefusals = true;

  readonly #machine: Qtest;
  #tail = 0;
  #head = 0;

  constructor(machine: Qtest) {
    this.#machine = machine;
  }

  async enable(registers: Readonly<Record<string, bigint>>): Promise<void> {
    const machine = this.#machine;
    await machine.writeq(DEVICE_TABLE, registers.devtab);
    await machine.writeq(COMMANDS, BigInt(COMMAND_BUFFER) | LENGTH_256);
    await machine.writeq(EVENTS, BigInt(EVENT_BUFFER) | LENGTH_256);
    await machine.writeq(COMMAND_HEAD, 0n);
    await machine.writeq(COMMAND_TAIL, 0n);
    await machine.writeq(EVENT_HEAD, 0n);
    await machine.writeq(CONTROL, IOMMU_ENABLE | EVENTS_ENABLE | COMMANDS_ENABLE);
    // QEMU looks whether a device is translated only when it is told that the device's entry changed.
    const functions = Array.from({ length: 32 }, (_, slot) => BigInt(slot * 8));
    await this.submit(functions.map((id): Command => [INVALIDATE_DEVICE | id, 0n]));
    await this.invalidateAll();
  }

  async invalidateAll(): Promise<void> {
    await this.submit([INVALIDATE_ALL]);
  }

  /** QEMU reads the entry for it, and logs what is illegal about it there and then. */
  async invalidateDevice(endpoint: number): Promise<void> {
    await this.submit([[INVALIDATE_DEVICE | BigInt(endpoint), 0n]]);
    while (await this.takeFault() !== undefined);
  }

  /** Hands over commands and waits until the IOMMU has done them. */
  async submit(commands: readonly Command[]): Promise<void> {
    const machine = this.#machine;
    const writes: Promise<void>[] = [];
    for (const [low, high] of [...commands, COMPLETION_WAIT]) {
      writes.push(machine.writeq(COMMAND_BUFFER + this.#tail, low));
      writes.push(machine.writeq(COMMAND_BUFFER + this.#tail + 8, high));
      this.#tail = (this.#tail + 16) % BUFFER_BYTES;
    }
    writes.push(machine.writeq(COMMAND_TAIL, BigInt(this.#tail)));
    await Promise.all(writes);
    const head = await machine.readq(COMMAND_HEAD);
    if (Number(head) !== this.#tail) {
      throw new Error(
        `Cannot command the IOMMU: head is 0x${head.toString(16)}, not ${this.#tail}`,
      );
    }
  }

  /** Address and direction are left out: QEMU's records have neither right. */
  async takeFault(): Promise<RecordedFault | undefined> {
    const machine = this.#machine;
    const tail = Number(await machine.readq(EVENT_TAIL));
    if (tail === this.#head) return undefined;
    const first = await machine.readq(EVENT_BUFFER + this.#head);
    this.#head = (this.#head + 16) % BUFFER_BYTES;
    await machine.writeq(EVENT_HEAD, BigInt(this.#head));
    return { code: Number(first >> 60n), endpoint: Number(first & 0xffffn) };
  }
}
