/**
 * A driver for a modern virtio PCI device of a machine under qtest (virtio 1.4, 4.1 and 2.7): capabilities,
 * features, and split rings in the machine's memory, one buffer at a time. Nothing of the product is used.
 *
 * @module
 */
import type { ConfigSpace } from "./pci.ts";
import type { Qtest } from "./qtest.ts";

/** PCI configuration space. */
const COMMAND = 0x04;
const BAR0 = 0x10;
const CAPABILITIES = 0x34;
const MEMORY_AND_MASTER = 0b110;
const VENDOR_CAPABILITY = 0x09;

/** Structures that the capabilities lead to (4.1.4). */
const COMMON = 1;
const NOTIFY = 2;
const DEVICE = 4;

/** Registers of the common structure (4.1.4.3). */
const DEVICE_FEATURE_SELECT = 0;
const DEVICE_FEATURE = 4;
const DRIVER_FEATURE_SELECT = 8;
const DRIVER_FEATURE = 12;
const DEVICE_STATUS = 20;
const QUEUE_SELECT = 22;
const QUEUE_SIZE = 24;
const QUEUE_ENABLE = 28;
const QUEUE_NOTIFY_OFF = 30;
const QUEUE_DESCRIPTORS = 32;
const QUEUE_DRIVER = 40;
const QUEUE_DEVICE = 48;

/** Device status (2.1). */
const ACKNOWLEDGE_DRIVER = 3;
const FEATURES_OK = 8;
const DRIVER_OK = 4;
const NEEDS_RESET = 0x40;

/** Descriptor flags (2.7.5). */
const NEXT = 1;
const WRITE = 2;

const RING_SIZE = 8;
/** Where a ring's parts are, from its start. */
const DRIVER_PART = 0x1000;
const DEVICE_PART = 0x2000;

/** One buffer that the device returned. */
export interface UsedBuffer {
  /** Bytes that it says it wrote. */
  readonly length: number;
}

/** The driver's side of a queue. */
class Ring {
  readonly #machine: Qtest;
  readonly #address: number;
  readonly #notify: () => Promise<void>;
  #available = 0;
  #used = 0;

  constructor(machine: Qtest, address: number, notify: () => Promise<void>) {
    this.#machine = machine;
    this.#address = address;
    this.#notify = notify;
  }

  /** Makes a chain of buffers available. */
  async add(
    buffers: readonly {
      readonly address: number;
      readonly length: number;
      readonly writable: boolean;
    }[],
  ): Promise<void> {
    const table = new DataView(new ArrayBuffer(16 * buffers.length));
    buffers.forEach(({ address, length, writable }, i) => {
      table.setBigUint64(i * 16, BigInt(address), true);
      table.setUint32(i * 16 + 8, length, true);
      const more = i + 1 < buffers.length;
      table.setUint16(i * 16 + 12, (more ? NEXT : 0) | (writable ? WRITE : 0), true);
      table.setUint16(i * 16 + 14, more ? i + 1 : 0, true);
    });
    const slot = this.#address + DRIVER_PART + 4 + (this.#available % RING_SIZE) * 2;
    this.#available = (this.#available + 1) & 0xffff;
    const index = Uint8Array.of(this.#available & 0xff, this.#available >> 8);
    await Promise.all([
      this.#machine.write(this.#address, new Uint8Array(table.buffer)),
      this.#machine.write(slot, new Uint8Array(2)),
      this.#machine.write(this.#address + DRIVER_PART + 2, index),
      this.#notify(),
    ]);
  }

  /** The next buffer that the device has used, if there is one. */
  async take(): Promise<UsedBuffer | undefined> {
    const base = this.#address + DEVICE_PART;
    const head = new DataView((await this.#machine.read(base, 4)).slice().buffer);
    if (head.getUint16(2, true) === this.#used) return undefined;
    const at = base + 4 + (this.#used % RING_SIZE) * 8;
    this.#used = (this.#used + 1) & 0xffff;
    return {
      length: new DataView((await this.#machine.read(at, 8)).slice().buffer).getUint32(4, true),
    };
  }
}

/** A structure of the device in the machine's physical memory. */
interface Structure {
  readonly address: number;
  readonly multiplier: number;
}

/** The device. Open it with {@linkcode VirtioPci.open}. */
export class VirtioPci {
  readonly #machine: Qtest;
  readonly #structures: ReadonlyMap<number, Structure>;
  #rings: Ring[] = [];

  private constructor(machine: Qtest, structures: ReadonlyMap<number, Structure>) {
    this.#machine = machine;
    this.#structures = structures;
  }

  /** Finds the device's structures and puts the BAR that holds them at `base`. */
  static async open(
    machine: Qtest,
    config: ConfigSpace,
    bdf: number,
    base: number,
  ): Promise<VirtioPci> {
    const structures = new Map<number, Structure>();
    const bars = new Set<number>();
    let at = await config.read(bdf, CAPABILITIES) & 0xfc;
    for (; at !== 0;) {
      const head = await config.read(bdf, at);
      const type = head >>> 24;
      if ((head & 0xff) === VENDOR_CAPABILITY && !structures.has(type) && type <= DEVICE) {
        const bar = await config.read(bdf, at + 4) & 0xff;
        const offset = await config.read(bdf, at + 8);
        const multiplier = type === NOTIFY ? await config.read(bdf, at + 16) : 0;
        structures.set(type, { address: base + offset, multiplier });
        bars.add(bar);
      }
      at = (head >>> 8) & 0xfc;
    }
    if (bars.size !== 1 || ![COMMON, NOTIFY, DEVICE].every((type) => structures.has(type))) {
      throw new Error(
        `Cannot drive function 0x${bdf.toString(16)}: no modern virtio device in one BAR`,
      );
    }
    const [bar] = bars;
    await config.write(bdf, BAR0 + bar * 4, base);
    await config.write(bdf, BAR0 + bar * 4 + 4, 0);
    await config.write(bdf, COMMAND, MEMORY_AND_MASTER);
    return new VirtioPci(machine, structures);
  }

  #common(offset: number): number {
    return this.#structures.get(COMMON)!.address + offset;
  }

  async #byte(command: string, address: number): Promise<number> {
    return Number(await this.#machine.command(`${command} 0x${address.toString(16)}`));
  }

  async #set(size: "b" | "w", address: number, value: number): Promise<void> {
    const text = `0x${address.toString(16)} 0x${value.toString(16)}`;
    await this.#machine.command(`write${size} ${text}`);
  }

  /** The device status byte. */
  async #status(): Promise<number> {
    return await this.#byte("readb", this.#common(DEVICE_STATUS));
  }

  /** Device features 31:0. */
  async featuresLow(): Promise<number> {
    await this.#machine.writel(this.#common(DEVICE_FEATURE_SELECT), 0);
    return await this.#machine.readl(this.#common(DEVICE_FEATURE));
  }

  /** Resets the device and waits until it has (2.4). */
  async reset(): Promise<void> {
    await this.#set("b", this.#common(DEVICE_STATUS), 0);
    while (await this.#status() !== 0);
  }

  /**
   * Initialises the device (3.1): features `low` and VERSION_1, and one ring for each address, in memory that is
   * made zero.
   */
  async start(low: number, rings: readonly number[]): Promise<void> {
    const machine = this.#machine;
    await this.reset();
    await this.#set("b", this.#common(DEVICE_STATUS), ACKNOWLEDGE_DRIVER);
    for (const [select, value] of [[0, low >>> 0], [1, 1]]) {
      await machine.writel(this.#common(DRIVER_FEATURE_SELECT), select);
      await machine.writel(this.#common(DRIVER_FEATURE), value);
    }
    await this.#set("b", this.#common(DEVICE_STATUS), ACKNOWLEDGE_DRIVER | FEATURES_OK);
    if ((await this.#status() & FEATURES_OK) === 0) {
      throw new Error(`Cannot agree on features 0x${(low >>> 0).toString(16)}`);
    }
    this.#rings = [];
    for (const [index, address] of rings.entries()) {
      await machine.write(address, new Uint8Array(DEVICE_PART + 0x1000));
      await this.#set("w", this.#common(QUEUE_SELECT), index);
      await this.#set("w", this.#common(QUEUE_SIZE), RING_SIZE);
      await machine.writeq(this.#common(QUEUE_DESCRIPTORS), BigInt(address));
      await machine.writeq(this.#common(QUEUE_DRIVER), BigInt(address + DRIVER_PART));
      await machine.writeq(this.#common(QUEUE_DEVICE), BigInt(address + DEVICE_PART));
      await this.#set("w", this.#common(QUEUE_ENABLE), 1);
      const { address: notify, multiplier } = this.#structures.get(NOTIFY)!;
      const offset = await this.#byte("readw", this.#common(QUEUE_NOTIFY_OFF));
      const bell = notify + offset * multiplier;
      this.#rings.push(new Ring(machine, address, () => this.#set("w", bell, index)));
    }
    const running = ACKNOWLEDGE_DRIVER | FEATURES_OK | DRIVER_OK;
    await this.#set("b", this.#common(DEVICE_STATUS), running);
  }

  /** A queue that {@linkcode start} made. */
  ring(index: number): Pick<Ring, "add" | "take"> {
    return this.#rings[index];
  }

  /** Waits until a queue has a used buffer; undefined if the device has failed or takes too long. */
  async waitFor(index: number, milliseconds: number): Promise<UsedBuffer | undefined> {
    const end = Date.now() + milliseconds;
    while (true) {
      const used = await this.#rings[index].take();
      if (used !== undefined) return used;
      if ((await this.#status() & NEEDS_RESET) !== 0 || Date.now() > end) return undefined;
    }
  }

  /** Reads bytes of the device's configuration space. */
  async readConfig(length: number): Promise<Uint8Array> {
    const base = this.#structures.get(DEVICE)!.address;
    return (await this.#machine.read(base, length)).slice();
  }

  /** Writes one byte of it. */
  async writeConfig(offset: number, value: number): Promise<void> {
    await this.#set("b", this.#structures.get(DEVICE)!.address + offset, value);
  }
}
