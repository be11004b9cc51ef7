/**
 * QEMU's emulated VT-d unit, programmed through its registers (VT-d §11.4).
 *
 * @module
 */
import type { WalkResult } from "../../pagetable/mod.ts";
import type { Board } from "./examination.ts";
import type { Judge, RecordedFault } from "./judge.ts";
import { portConfigSpace } from "./pci.ts";
import type { Qtest } from "./qtest.ts";

/** Where a PC's only unit has its registers. */
const BASE = 0xfed9_0000;

const CAPABILITIES = BASE + 0x08;
const EXTENDED_CAPABILITIES = BASE + 0x10;
const GLOBAL_COMMAND = BASE + 0x18;
const GLOBAL_STATUS = BASE + 0x1c;
const ROOT_TABLE = BASE + 0x20;
const CONTEXT_COMMAND = BASE + 0x28;
const FAULT_STATUS = BASE + 0x34;
const QUEUE_HEAD = BASE + 0x80;
const QUEUE_TAIL = BASE + 0x88;
const QUEUE_ADDRESS = BASE + 0x90;

const TRANSLATION_ENABLE = 1 << 31;
const SET_ROOT_TABLE = 1 << 30;
const QUEUE_ENABLE = 1 << 26;
/** FSTS bits that are cleared by writing ones: overflow and queue errors. */
const STATUS_ERRORS = 0x71;

/** A PC with the unit; `options` are those of `-device intel-iommu`, each with a comma before it. */
export function vtdBoard(options: string): Board {
  return {
    args: [
      "-M",
      "q35,kernel-irqchip=off",
      "-m",
      "4G",
      "-device",
      `intel-iommu,intremap=off${options}`,
    ],
    tables: { baseFrame: 0x1000, bytes: 64 << 20 },
    ram: [{ first: 0x8000, last: 0x7ffff }, { first: 0x10_0000, last: 0x17_ffff }],
    scratch: 0x7000,
    registers: 0xe000_0000,
    config: portConfigSpace,
    judge: (machine) => new VtdJudge(machine),
  };
}

/** The unit. Invalidations go through the registers, or through a queue once `openQueue` was called. */
export class VtdJudge implements Judge {
  /** Observed; the specification has it record every fault (VT-d §7.1). */
  readonly forgetsRefusals = true;

  readonly #machine: Qtest;
  #faultRecord = 0;
  #iotlbCommand = 0;
  #queue: InvalidationQueue | undefined;

  constructor(machine: Qtest) {
    this.#machine = machine;
  }

  async enable(registers: Readonly<Record<string, bigint>>): Promise<void> {
    const capabilities = await this.#machine.readq(CAPABILITIES);
    const extended = await this.#machine.readq(EXTENDED_CAPABILITIES);
    this.#faultRecord = BASE + Number((capabilities >> 24n) & 0x3ffn) * 16;
    this.#iotlbCommand = BASE + Number((extended >> 8n) & 0x3ffn) * 16 + 8;
    await this.#machine.writeq(ROOT_TABLE, registers.rtaddr);
    await this.#command(SET_ROOT_TABLE, 0);
    await this.#command(TRANSLATION_ENABLE, TRANSLATION_ENABLE);
  }

  /** Gives a command; `staying` are the enables that hold from then on. */
  async #command(command: number, staying: number): Promise<void> {
    await this.#machine.writel(GLOBAL_COMMAND, (command | staying) >>> 0);
    const status = await this.#machine.readl(GLOBAL_STATUS);
    if ((status & command) !== command) {
      throw new Error(`Cannot enable VT-d: global status is 0x${status.toString(16)}`);
    }
  }

  async invalidateAll(): Promise<void> {
    if (this.#queue !== undefined) {
      await this.#queue.submit([[0x11n, 0n], [0x0000_0000_0000_0017n, 0n], [0x12n, 0n]]);
      return;
    }
    await Promise.all([
      this.#machine.writeq(CONTEXT_COMMAND, 1n << 63n | 1n << 61n),
      this.#machine.writeq(this.#iotlbCommand, 1n << 63n | 1n << 60n),
    ]);
  }

  /** Turns on queued invalidation with a queue of 256 descriptors of 16 bytes at a physical address. */
  async openQueue(address: number): Promise<InvalidationQueue> {
    await this.#machine.writeq(QUEUE_TAIL, 0n);
    await this.#machine.writeq(QUEUE_ADDRESS, BigInt(address));
    await this.#command(QUEUE_ENABLE, TRANSLATION_ENABLE);
    this.#queue = new InvalidationQueue(this.#machine, address);
    return this.#queue;
  }

  async takeFault(): Promise<RecordedFault | undefined> {
    const high = await this.#machine.readq(this.#faultRecord + 8);
    if (high >> 63n === 0n) return undefined;
    const low = await this.#machine.readq(this.#faultRecord);
    await this.#machine.writeq(this.#faultRecord + 8, 1n << 63n);
    await this.#machine.writel(FAULT_STATUS, STATUS_ERRORS);
    return {
      code: Number((high >> 32n) & 0xffn),
      endpoint: Number(high & 0xffffn),
      page: Number(low >> 12n),
      write: ((high >> 62n) & 1n) === 0n,
    };
  }
}

/** The unit's invalidation queue (VT-d §6.5.2). */
export class InvalidationQueue {
  readonly #machine: Qtest;
  readonly #address: number;
  #tail = 0;

  constructor(machine: Qtest, address: number) {
    this.#machine = machine;
    this.#address = address;
  }

  /** Hands over descriptors of two words and waits until the unit has taken them all. */
  async submit(descriptors: readonly (readonly [bigint, bigint])[]): Promise<void> {
    for (const [low, high] of descriptors) {
      await this.#machine.writeq(this.#address + this.#tail * 16, low);
      await this.#machine.writeq(this.#address + this.#tail * 16 + 8, high);
      this.#tail = (this.#tail + 1) % 256;
    }
    await this.#machine.writeq(QUEUE_TAIL, BigInt(this.#tail * 16));
    const head = await this.#machine.readq(QUEUE_HEAD);
    const status = await this.#machine.readl(FAULT_STATUS);
    if (Number(head) !== this.#tail * 16 || (status & STATUS_ERRORS) !== 0) {
      throw new Error(`Cannot invalidate: head 0x${head.toString(16)}, fault status ${status}`);
    }
  }
}

/**
 * In scalable mode QEMU records the legacy-mode reasons for root, context and second-stage faults, where the
 * specification has reasons of their own (VT-d §7.1.3).
 */
export function legacyReason(result: WalkResult, access: "r" | "w"): number {
  switch (result.faultCode) {
    case 0x39:
      return 0x1;
    case 0x3a:
      return 0xa;
    case 0x41:
      return 0x2;
    case 0x42:
      return 0xb;
    case 0x79:
      return access === "w" ? 0x5 : 0x6;
    case 0x7a:
      return 0xc;
    case 0x83:
      return 0x4;
    default:
      return result.faultCode;
  }
}
