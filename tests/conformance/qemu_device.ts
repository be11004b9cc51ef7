/**
 * QEMU's built-in `virtio-iommu-pci` as a device under test, in a machine without a guest.
 *
 * Endpoints are `edu` devices that send real DMA; QEMU's own trace shows the translation of an access.
 *
 * @module
 */
import type { Qemu } from "../guest/lab/mod.ts";
import { Edu, eduArguments } from "../oracle/edu.ts";
import { type ConfigSpace, portConfigSpace } from "../oracle/pci.ts";
import { Qtest } from "../oracle/qtest.ts";
import { VirtioPci } from "../oracle/virtio_pci.ts";
import { piecesOf } from "../device/in_process_guest.ts";
import {
  type AccessResult,
  type Answer,
  type Configuration,
  type DeviceUnderTest,
  NotConfigurable,
  POISON,
} from "./subject.ts";

/** PCI slots: the IOMMU, the endpoints 8, 16 and 24, and the highest endpoint of bus 0. */
const IOMMU_SLOT = 5;
const ENDPOINT_SLOTS = [1, 2, 3];
const LAST_ENDPOINT = 0xff;

/** Where the registers of the devices go, and the rings and buffers. */
const IOMMU_BASE = 0xd000_0000;
const ENDPOINT_BASE = 0xe000_0000;
const REQUEST_RING = 0x10_0000;
const EVENT_RING = 0x11_0000;
const READABLE = 0x12_0000;
const WRITABLE = 0x13_0000;
const EVENT = 0x14_0000;

const CONFIG_SIZE = 40;
const REPORT_SIZE = 24;
/** Bits 28:24 and others belong to the ring; the device type has those below 24. */
const DEVICE_FEATURES = 0xff_ffff;
/** Milliseconds for an answer, and for a report that may not come. */
const PATIENCE = 2000;
const MOMENT = 100;

/** The x86 machine's register that resets it. */
const RESET_PORT = "outb 0xcf9 0x6";
const COMMAND = 0x04;

/** A machine with the device. Open it with {@linkcode QemuDevice.open}. */
export class QemuDevice implements DeviceUnderTest {
  readonly #machine: Qtest;
  readonly #config: ConfigSpace;
  readonly #folder: string;
  readonly #withoutNegotiating: number;
  readonly #endpoints = new Map<number, Edu>();
  #device!: VirtioPci;
  /** Size of the event buffer that the device has; 0 for none. */
  #eventBuffer = 0;
  #traced = 0;
  features = 0;

  private constructor(qemu: Qemu, folder: string, bypass: boolean, withoutNegotiating: number) {
    this.#folder = folder;
    this.#withoutNegotiating = withoutNegotiating;
    const iommu = `virtio-iommu-pci,addr=${IOMMU_SLOT},boot-bypass=${bypass ? "on" : "off"}`;
    this.#machine = new Qtest(qemu, [
      ...["-M", "q35", "-m", "2G", "-D", `${folder}/trace`],
      ...["-trace", "enable=virtio_iommu_translate_out"],
      ...["-device", iommu],
      ...ENDPOINT_SLOTS.flatMap(eduArguments),
      ...["-device", "edu,addr=1f.7"],
    ]);
    this.#config = portConfigSpace(this.#machine);
  }

  /** Starts a machine and sets the device up. Throws {@linkcode NotConfigurable} for what QEMU has no option for. */
  static async open(
    qemu: Qemu,
    configuration: Configuration,
    withoutNegotiating: number,
  ): Promise<QemuDevice> {
    const { bypass = true, lastEndpoint, ...rest } = configuration;
    const unknown = Object.keys(rest);
    if (unknown.length > 0 || (lastEndpoint ?? LAST_ENDPOINT) !== LAST_ENDPOINT) {
      throw new NotConfigurable(unknown.join(", "));
    }
    const folder = await Deno.makeTempDir({ prefix: "viommu-" });
    const opened = new QemuDevice(qemu, folder, bypass, withoutNegotiating);
    try {
      await opened.#setUp();
      return opened;
    } catch (error) {
      await opened.close();
      throw error;
    }
  }

  async #setUp(): Promise<void> {
    const machine = this.#machine;
    this.#device = await VirtioPci.open(machine, this.#config, IOMMU_SLOT * 8, IOMMU_BASE);
    this.features = await this.#device.featuresLow() & DEVICE_FEATURES;
    await this.#start();
    for (const slot of ENDPOINT_SLOTS) {
      const base = ENDPOINT_BASE + slot * 0x100_0000;
      this.#endpoints.set(slot * 8, await Edu.open(machine, this.#config, slot, base));
    }
  }

  async #start(): Promise<void> {
    await this.#device.start(this.features & ~this.#withoutNegotiating, [REQUEST_RING, EVENT_RING]);
    this.#eventBuffer = 0;
  }

  async request(readable: Uint8Array, writableLength: number, pieces = 1): Promise<Answer> {
    const buffers = [];
    if (readable.length > 0) {
      await this.#machine.write(READABLE, readable);
      for (const [address, length] of piecesOf(READABLE, readable.length, pieces)) {
        buffers.push({ address, length, writable: false });
      }
    }
    if (writableLength > 0) {
      await this.#machine.write(WRITABLE, new Uint8Array(writableLength).fill(POISON));
      for (const [address, length] of piecesOf(WRITABLE, writableLength, pieces)) {
        buffers.push({ address, length, writable: true });
      }
    }
    await this.#device.ring(0).add(buffers);
    const used = await this.#device.waitFor(0, PATIENCE);
    if (used === undefined) throw new Error("The device does not answer");
    return { length: used.length, bytes: await this.#read(WRITABLE, writableLength) };
  }

  async #read(address: number, length: number): Promise<Uint8Array> {
    return length === 0 ? new Uint8Array(0) : (await this.#machine.read(address, length)).slice();
  }

  readConfig(): Promise<Uint8Array> {
    return this.#device.readConfig(CONFIG_SIZE);
  }

  writeConfig(offset: number, value: number): Promise<void> {
    return this.#device.writeConfig(offset, value);
  }

  async reset(kind: "device" | "system"): Promise<void> {
    if (kind === "device") return await this.#start();
    await this.#machine.command(RESET_PORT);
    // After the reset the functions no longer decode memory accesses.
    while ((await this.#config.read(IOMMU_SLOT * 8, COMMAND) & 2) !== 0);
    await this.#setUp();
  }

  /** Sends DMA: a fault shows as a report, a translation in the trace. */
  async access(endpoint: number, iova: bigint, access: "r" | "w"): Promise<AccessResult> {
    await this.#offerEventBuffer(REPORT_SIZE);
    await this.#send(endpoint, iova, access);
    if (await this.#takeReport(0) !== undefined) return "fault";
    for (const line of await this.#newTraces()) {
      const [, from, to] = /^virtio_iommu_translate_out (\w+) -> (\w+)/.exec(line) ?? [];
      if (from !== undefined && BigInt(from) === iova) return { phys: BigInt(to) };
    }
    // QEMU does not ask its IOMMU about an endpoint that bypasses it.
    return { phys: iova };
  }

  async fault(
    endpoint: number,
    iova: bigint,
    access: "r" | "w",
    bufferSize: number,
  ): Promise<Answer | undefined> {
    await this.#offerEventBuffer(bufferSize);
    await this.#send(endpoint, iova, access);
    return await this.#takeReport(MOMENT);
  }

  async #send(endpoint: number, iova: bigint, access: "r" | "w"): Promise<void> {
    const edu = this.#endpoints.get(endpoint);
    if (edu === undefined) throw new Error(`Cannot find a device at endpoint ${endpoint}`);
    await (access === "r" ? edu.load(iova) : edu.store(iova));
  }

  /** Gives the device one buffer for a report, unless it has one that was not used. */
  async #offerEventBuffer(size: number): Promise<void> {
    if (this.#eventBuffer !== 0) {
      if (this.#eventBuffer === size) return;
      throw new Error(`Cannot offer ${size} bytes: a buffer of ${this.#eventBuffer} is out`);
    }
    await this.#machine.write(EVENT, new Uint8Array(size).fill(POISON));
    await this.#device.ring(1).add([{ address: EVENT, length: size, writable: true }]);
    this.#eventBuffer = size;
  }

  async #takeReport(milliseconds: number): Promise<Answer | undefined> {
    const used = await this.#device.waitFor(1, milliseconds);
    if (used === undefined) return undefined;
    const bytes = await this.#read(EVENT, this.#eventBuffer);
    this.#eventBuffer = 0;
    return { length: used.length, bytes };
  }

  async #newTraces(): Promise<readonly string[]> {
    const text = await Deno.readTextFile(`${this.#folder}/trace`).catch(() => "");
    const fresh = text.slice(this.#traced);
    this.#traced = text.length;
    return fresh.split("\n");
  }

  async close(): Promise<void> {
    await this.#machine[Symbol.asyncDispose]();
    await Deno.remove(this.#folder, { recursive: true });
  }
}
