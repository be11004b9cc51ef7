/**
 * QEMU's `edu` device as a source of DMA, through VFIO or through a VMM (registers: `docs/specs/edu.rst` of QEMU).
 *
 * It does not say whether an access to memory was blocked: what memory holds afterwards does.
 *
 * @module
 */
import { until } from "../../until.ts";
import { readAt, writeAt } from "./libc.ts";
import type { HostDevice } from "./vfio.ts";

const BAR0 = 0;
const CONFIG = 7;
/** The command register of the configuration space, and its bits: answers in memory, is a bus master. */
const PCI_COMMAND = 4;
const MEMORY_AND_MASTER = 0b110;

const DMA_SOURCE = 0x80;
const DMA_DESTINATION = 0x88;
const DMA_COUNT = 0x90;
const DMA_COMMAND = 0x98;
/** The device's own buffer, on the DMA side; the processor cannot read it. */
const BUFFER = 0x40000n;
const START_READ = 1n;
const START_WRITE = 3n;
const BUSY = 1n;
/** Bytes of a transfer. */
const TRANSFER_BYTES = 8n;

/** How the registers of one are reached. */
export interface EduRegisters {
  write(offset: number, value: bigint): void | Promise<void>;
  read(offset: number): bigint | Promise<bigint>;
}

/** One edu device that may reach memory. A transfer takes 100 ms of its machine's time. */
export class Edu {
  readonly #registers: EduRegisters;

  constructor(registers: EduRegisters) {
    this.#registers = registers;
  }

  /** Brings 8 bytes at an I/O address into its buffer. */
  async load(iova: bigint): Promise<void> {
    await this.#transfer(iova, BUFFER, START_READ);
  }

  /** Writes the 8 bytes of its buffer to an I/O address. */
  async store(iova: bigint): Promise<void> {
    await this.#transfer(BUFFER, iova, START_WRITE);
  }

  async #transfer(source: bigint, destination: bigint, command: bigint): Promise<void> {
    const registers = this.#registers;
    await registers.write(DMA_SOURCE, source);
    await registers.write(DMA_DESTINATION, destination);
    await registers.write(DMA_COUNT, TRANSFER_BYTES);
    await registers.write(DMA_COMMAND, command);
    await until(
      async () => (await registers.read(DMA_COMMAND) & BUSY) === 0n,
      "edu ends its transfer",
    );
  }
}

/** The device behind a file that is bound to an iommufd. It is made a bus master. */
export function eduOf(device: HostDevice): Edu {
  const { file } = device;
  const registers = device.regionOffset(BAR0);
  const command = device.regionOffset(CONFIG) + PCI_COMMAND;
  writeAt(file, command, Uint8Array.of(MEMORY_AND_MASTER, 0));
  return new Edu({
    write: (offset, value) =>
      writeAt(file, registers + offset, new Uint8Array(BigUint64Array.of(value).buffer)),
    read: (offset) => readAt(file, registers + offset, 8).getBigUint64(0, true),
  });
}
