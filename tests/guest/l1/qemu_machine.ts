/**
 * Stock QEMU in L1, with our device and a device of the host that it passes through. It runs without a guest: each access
 * to its memory and to registers is a command (qtest). The driver of the virtio-iommu is that of `tests/oracle`.
 *
 * @module
 */
import { delay } from "@std/async";
import { statusName } from "../../../device/iommu/driver_requests.ts";
import { type ConfigSpace, enableFunction, portConfigSpace } from "../../oracle/pci.ts";
import { Qtest } from "../../oracle/qtest.ts";
import { VirtioPci } from "../../oracle/virtio_pci.ts";
import { until } from "../../until.ts";
import type { Qemu } from "../lab/mod.ts";
import { Edu } from "./edu.ts";

/** PCI slots, and where the registers go. */
const IOMMU_SLOT = 2;
const EDU_SLOT = 4;
const IOMMU_BASE = 0xd000_0000;
const EDU_BASE = 0xe000_0000;

const PAGE = 4096;
/** Where rings and buffers are in the machine's memory. */
const REQUEST_RING = 0x10_0000;
const EVENT_RING = 0x11_0000;
const READABLE = 0x12_0000;
const WRITABLE = 0x13_0000;
const TAIL_BYTES = 4;
/** The device's own feature bits. */
const DEVICE_FEATURES = 0xff_ffff;
/** Milliseconds for an answer: far more than it takes. */
const ANSWER_LIMIT = 60_000;

/** Milliseconds between a reset and the first device that firmware enables. */
const FIRMWARE_MS = 1000;

const PCI_COMMAND = 4;
const MEMORY_SPACE = 2;
/** The machine's register that resets it. */
const RESET = "outb 0xcf9 0x6";

/** What devices move next: never the same twice. */
let nextValue = 0xfeed_0000;

/** QEMU with the device. */
export class QemuMachine implements AsyncDisposable {
  readonly #machine: Qtest;
  readonly #config: ConfigSpace;
  #device!: VirtioPci;
  /** The device of the host, driven through QEMU. */
  readonly edu: Edu;

  private constructor(machine: Qtest) {
    this.#machine = machine;
    this.#config = portConfigSpace(machine);
    this.edu = new Edu({
      write: (offset, value) => machine.writeq(EDU_BASE + offset, value),
      read: (offset) => machine.readq(EDU_BASE + offset),
    });
  }

  /**
   * Starts QEMU, connected to our device.
   *
   * QEMU 11.1 crashes where `vfio-pci` has `fd` and no `id`.
   *
   * @param iommufd The value of `-object iommufd,id=iommufd0`, and
   * @param device that of `-device vfio-pci,iommufd=iommufd0`, as further properties.
   */
  static async start(socket: string, iommufd: string, device: string): Promise<QemuMachine> {
    const qemu: Qemu = JSON.parse(await Deno.readTextFile("/programs/qemu.json"));
    const iommu = "chardev=viommu,virtio-id=23,num_vqs=2,vq_size=128,config_size=40";
    const machine = new QemuMachine(
      new Qtest(qemu, [
        ...["-M", "q35,memory-backend=mem", "-m", "64"],
        ...["-object", "memory-backend-memfd,id=mem,size=64M,share=on"],
        ...["-object", `iommufd,id=iommufd0${iommufd}`],
        ...["-chardev", `socket,id=viommu,path=${socket}`],
        ...["-device", `vhost-user-test-device-pci,addr=${IOMMU_SLOT},${iommu}`],
        ...["-device", `vfio-pci,id=passed,addr=${EDU_SLOT},iommufd=iommufd0,${device}`],
      ]),
    );
    await machine.#enableEdu();
    return machine;
  }

  async #enableEdu(): Promise<void> {
    await enableFunction(this.#config, EDU_SLOT * 8, EDU_BASE);
  }

  /** What the guest's driver does at first: it makes the device's queues run. */
  async startDriver(): Promise<void> {
    this.#device = await VirtioPci.open(
      this.#machine,
      this.#config,
      IOMMU_SLOT * 8,
      IOMMU_BASE,
    );
    const features = await this.#device.featuresLow() & DEVICE_FEATURES;
    await this.#device.start(features, [REQUEST_RING, EVENT_RING]);
  }

  /** Resets the machine. Its devices are enabled again as firmware does it; no driver has come yet. */
  async reset(): Promise<void> {
    await this.#machine.command(RESET);
    // After the reset the functions no longer decode memory accesses.
    await until(
      async () => (await this.#config.read(EDU_SLOT * 8, PCI_COMMAND) & MEMORY_SPACE) === 0,
      "the machine is reset",
    );
    // Firmware has much to do before it enables devices.
    await delay(FIRMWARE_MS);
    await this.#enableEdu();
  }

  /** Sends a request; the name of its status. */
  async request(readable: Uint8Array): Promise<string> {
    await this.#machine.write(READABLE, readable);
    await this.#machine.write(WRITABLE, new Uint8Array(TAIL_BYTES).fill(0xff));
    await this.#device.ring(0).add([
      { address: READABLE, length: readable.length, writable: false },
      { address: WRITABLE, length: TAIL_BYTES, writable: true },
    ]);
    const used = await this.#device.waitFor(0, ANSWER_LIMIT);
    if (used === undefined) throw new Error("The device does not answer");
    return statusName(await this.#machine.read(WRITABLE, TAIL_BYTES), used.length);
  }

  /** Whether the device reads the guest page `from.frame` at I/O page `from.page`, and writes `to.frame` at `to.page`. */
  async moves(from: Place, to: Place): Promise<boolean> {
    const value = nextValue++;
    await this.#machine.writel(from.frame * PAGE, value);
    await this.#machine.writel(to.frame * PAGE, 0);
    await this.edu.load(BigInt(from.page) * BigInt(PAGE));
    await this.edu.store(BigInt(to.page) * BigInt(PAGE));
    return await this.#machine.readl(to.frame * PAGE) === value;
  }

  /** Kills QEMU. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#machine[Symbol.asyncDispose]();
  }
}

/** An I/O page, and the guest page that it should lead to. */
export interface Place {
  readonly page: number;
  readonly frame: number;
}
