/**
 * QEMU's `edu` device as a source of DMA (registers: `docs/specs/edu.rst` of QEMU).
 *
 * @module
 */
import { type ConfigSpace, enableFunction } from "./pci.ts";
import type { Qtest } from "./qtest.ts";

const IDENTITY = 0x00;
const DMA_SOURCE = 0x80;
const DMA_DESTINATION = 0x88;
const DMA_COUNT = 0x90;
const DMA_COMMAND = 0x98;
/** The device's own buffer, on the DMA side; the processor cannot read it. */
const BUFFER = 0x40000;

const START_READ = 1;
const START_WRITE = 3;
const BUSY = 1;

/** QEMU makes two accesses of more than this where nothing answers, and an IOMMU then records two faults. */
const TRANSFER_BYTES = 4n;

/** A transfer starts 100 ms of the machine's time after it was asked for. */
const TRANSFER_NS = 110_000_000;

/** The QEMU option that adds one at a PCI slot, able to send any 64-bit address. */
export function eduArguments(slot: number): readonly string[] {
  return ["-device", `edu,addr=${slot},dma_mask=0xffffffffffffffff`];
}

/** One edu device. */
export class Edu {
  /** Its requester id. */
  readonly bdf: number;
  readonly #machine: Qtest;
  readonly #base: number;

  private constructor(machine: Qtest, bdf: number, base: number) {
    this.#machine = machine;
    this.bdf = bdf;
    this.#base = base;
  }

  /** Finds it at a PCI slot of bus 0, puts its registers at `base` and makes it a bus master. */
  static async open(
    machine: Qtest,
    config: ConfigSpace,
    slot: number,
    base: number,
  ): Promise<Edu> {
    const edu = new Edu(machine, slot * 8, base);
    await enableFunction(config, edu.bdf, base);
    const identity = await machine.readl(base + IDENTITY);
    if (identity % 256 !== 0xed) {
      throw new Error(`Cannot find edu at slot ${slot}: identity is 0x${identity.toString(16)}`);
    }
    return edu;
  }

  /** Brings 4 bytes at an I/O address into the device's buffer. */
  async load(iova: number | bigint): Promise<void> {
    await this.#transfer(BigInt(iova), BigInt(BUFFER), START_READ);
  }

  /** Writes the 4 bytes of the device's buffer to an I/O address. */
  async store(iova: number | bigint): Promise<void> {
    await this.#transfer(BigInt(BUFFER), BigInt(iova), START_WRITE);
  }

  async #transfer(source: bigint, destination: bigint, command: number): Promise<void> {
    const [, , , , , state] = await Promise.all([
      this.#machine.writeq(this.#base + DMA_SOURCE, source),
      this.#machine.writeq(this.#base + DMA_DESTINATION, destination),
      this.#machine.writeq(this.#base + DMA_COUNT, TRANSFER_BYTES),
      this.#machine.writeq(this.#base + DMA_COMMAND, BigInt(command)),
      this.#machine.step(TRANSFER_NS),
      this.#machine.readq(this.#base + DMA_COMMAND),
    ]);
    if ((Number(state) & BUSY) !== 0) throw new Error("Cannot transfer: edu is still busy");
  }
}
