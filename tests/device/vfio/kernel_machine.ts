/**
 * A guest's RAM and devices of the host under test, over a kernel: the real one, or that of `fake_iommufd.ts`.
 *
 * @module
 */
import {
  createMemoryFile,
  type Descriptor,
  mapMemoryFile,
  SharedMemory,
} from "../../../device/host/mod.ts";
import { Log } from "../../../device/log.ts";
import type { DeviceCalls } from "../../../device/vfio/mod.ts";
import { KernelIommu } from "../../../device/vfio/kernel_iommu.ts";
import type { KernelTable } from "../../../device/vfio/kernel_table.ts";
import { HostGroup, PassedDevice } from "../../../device/vfio/passed_device.ts";
import { VfioDevice } from "../../../device/vfio/vfio_device.ts";
import type { MemoryRegion } from "../../../vring/mod.ts";

/** A kernel with devices that are bound to one `/dev/iommu` and attached to an address space of a VMM's. */
export interface KernelWorld {
  readonly calls: DeviceCalls;
  /** The open `/dev/iommu`. */
  readonly iommufd: Descriptor;
  /** The open devices. */
  readonly devices: readonly Descriptor[];
  /** The number of each device's IOMMU group. */
  readonly groups: readonly number[];
  /** The last page that the devices can be mapped at. */
  readonly lastPage: number;
  /** A page at which interrupts are written. */
  readonly msiPage: number;
  /**
   * Has a device read 8 bytes at the beginning of one page, and write them at the beginning of another. Where the read is
   * blocked it may write what it read before.
   */
  copy(device: number, fromPage: number, toPage: number): void | Promise<void>;
}

/** A region of RAM. */
export interface Ram {
  readonly region: MemoryRegion;
  /** The first 8 bytes of each page. */
  word(frame: number): bigint;
  setWord(frame: number, value: bigint): void;
  [Symbol.dispose](): void;
}

/** Whether the files of RAM are kept: then it is mapped by them where the kernel can. */
export function createRam(
  firstFrame: number,
  pages: number,
  keepsFile = true,
  skippedPages = 0,
): Ram {
  using file = createMemoryFile("guest-ram", (skippedPages + pages) * 4096);
  const before = SharedMemory.keepsFiles;
  SharedMemory.keepsFiles = keepsFile;
  const memory = mapMemoryFile(file, skippedPages * 4096, pages * 4096);
  SharedMemory.keepsFiles = before;
  const words = new BigUint64Array(memory.buffer);
  const guestAddress = firstFrame * 4096;
  return {
    region: { guestAddress, size: pages * 4096, buffer: memory.buffer, offset: 0 },
    word: (frame) => words[(frame - firstFrame) * 512],
    setWord: (frame, value) => words[(frame - firstFrame) * 512] = value,
    [Symbol.dispose]: () => memory.close(),
  };
}

/** The code under test over a kernel. */
export class KernelMachine {
  readonly world: KernelWorld;
  readonly iommu: KernelIommu;
  readonly devices: readonly PassedDevice[];
  /** What was logged, warnings and errors. */
  readonly lines: string[] = [];
  #value = 0x5eed_0000_0000n;

  constructor(world: KernelWorld) {
    this.world = world;
    const log = new Log("warn", (line) => this.lines.push(line), () => 0);
    this.iommu = new KernelIommu(world.iommufd, world.calls, log);
    const groups = new Map<number, HostGroup>();
    this.devices = world.devices.map((file, at) => {
      const number = world.groups[at];
      const group = groups.get(number) ?? new HostGroup(number);
      groups.set(number, group);
      const { iommu } = this;
      return new PassedDevice({
        endpoint: 0x20 + at * 8,
        iommu,
        group,
        file: new VfioDevice(file, world.calls),
        log,
      });
    });
  }

  /** A new table. */
  table(): KernelTable {
    const table = this.iommu.createTable();
    if (typeof table === "number") throw new Error(`Cannot make a table: error ${table}`);
    return table;
  }

  /** Whether a device reads `from` at a page and writes `to` at another: frames of RAM, each in its region. */
  async reaches(
    device: number,
    from: readonly [page: number, ram: Ram, frame: number],
    to: readonly [page: number, ram: Ram, frame: number],
  ): Promise<boolean> {
    const value = this.#value++;
    from[1].setWord(from[2], value);
    to[1].setWord(to[2], 0n);
    await this.world.copy(device, from[0], to[0]);
    return to[1].word(to[2]) === value;
  }
}
