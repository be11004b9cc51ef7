/**
 * QEMU's `edu` device as a source of DMA, through VFIO (registers: `docs/specs/edu.rst` of QEMU).
 *
 * It does not say whether an access to memory was blocked: what memory holds afterwards does.
 *
 * @module
 */
import { until } from "../../until.ts";
import { readAt, writeAt } from "./libc.ts";

const BAR0 = 0;
const CONFIG = 7;
/** The command register of the configuration space, and its bits: answers in memory, is a bus master. */
const PCI_COMMAND = 4;
const MEMORY_AND_MASTER = 0b110;
const BUS_MASTER = 0b100;

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

/** What a device's open file offers. */
export interface DeviceFile {
  readonly file: number;
  regionOffset(index: number): number;
}

/** One edu device. A transfer takes 100 ms of the machine's time. */
export class Edu {
  readonly #file: number;
  readonly #registers: number;
  readonly #config: number;

  /** The device behind a file that is bound to an iommufd; lets it reach memory. */
  constructor(device: DeviceFile) {
    this.#file = device.file;
    this.#registers = device.regionOffset(BAR0);
    this.#config = device.regionOffset(CONFIG);
    this.enable();
  }

  /** Sets memory space and bus master in its command register. */
  enable(): void {
    writeAt(this.#file, this.#config + PCI_COMMAND, Uint8Array.of(MEMORY_AND_MASTER, 0));
  }

  /** Whether it is a bus master. */
  get isMaster(): boolean {
    return (readAt(this.#file, this.#config + PCI_COMMAND, 2).getUint8(0) & BUS_MASTER) !== 0;
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
    this.#writeRegister(DMA_SOURCE, source);
    this.#writeRegister(DMA_DESTINATION, destination);
    this.#writeRegister(DMA_COUNT, TRANSFER_BYTES);
    this.#writeRegister(DMA_COMMAND, command);
    await until(() => (this.#readRegister(DMA_COMMAND) & BUSY) === 0n, "edu ends its transfer");
  }

  #writeRegister(offset: number, value: bigint): void {
    const bytes = new Uint8Array(BigUint64Array.of(value).buffer);
    writeAt(this.#file, this.#registers + offset, bytes);
  }

  #readRegister(offset: number): bigint {
    return readAt(this.#file, this.#registers + offset, 8).getBigUint64(0, true);
  }
}
