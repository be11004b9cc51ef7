/**
 * A host with devices that can be passed through: its kernel is that of `fake_iommufd.ts`, its sysfs a folder of files. The
 * open files are real ones of other character devices, so that they can be inherited, sent and duplicated.
 *
 * @module
 */
import { Descriptor } from "../../../device/host/mod.ts";
import { O_CLOEXEC, O_RDWR } from "../../../device/host/constants.ts";
import { descriptorStatus } from "../../../device/host/file_status.ts";
import { cString, libc } from "../../../device/host/libc.ts";
import type { HostPlaces } from "../../../device/vfio/mod.ts";
import { VFIO_ATTACH } from "../../../device/vfio/vfio_device.ts";
import { FakeKernel } from "./fake_iommufd.ts";
import { type FakeDevice, FakeGroup, type FakeIoas } from "./fake_objects.ts";

/** What stands for `/dev/iommu`. */
const IOMMU = "/dev/null";
/** What stand for `/dev/vfio/devices/vfioN`. */
const FILES = ["/dev/zero", "/dev/full", "/dev/urandom"];
/** What the kernel of a PC reserves. */
const RESERVED = "0x00000000fee00000 0x00000000feefffff msi\n";

/** A device of the host. */
export interface FakeHostDevice {
  /** Its PCI address. */
  readonly address: string;
  readonly device: FakeDevice;
}

/** A host. */
export class FakeHost implements Disposable {
  readonly kernel = new FakeKernel();
  /** 0000:01:00.0, and so on. */
  readonly devices: readonly FakeHostDevice[];
  /** Its kernel and its sysfs. */
  readonly places: HostPlaces;
  readonly #iommufd: ReturnType<FakeKernel["openIommufd"]>;
  readonly #numbers = new Map<string, number>();
  readonly #kept: Descriptor[] = [];
  #vmms: FakeIoas | undefined;

  /**
   * @param groups The IOMMU group of each device.
   * @param strangers PCI addresses of other devices in the group of the first.
   */
  constructor(groups: readonly number[] = [7], strangers: readonly string[] = []) {
    const sysfs = Deno.makeTempDirSync();
    const fakeGroups = new Map(groups.map((each) => [each, new FakeGroup()]));
    this.#iommufd = this.kernel.openIommufd(this.#open(IOMMU));
    this.#place(sysfs, IOMMU, "devices/virtual/misc/iommu");
    this.devices = groups.map((number, i) => {
      const address = `0000:01:00.${i}`;
      const folder = `devices/pci0000:00/${address}`;
      Deno.mkdirSync(`${sysfs}/${folder}/vfio-dev/vfio${i}`, { recursive: true });
      Deno.mkdirSync(`${sysfs}/kernel/iommu_groups/${number}/devices/${address}`, {
        recursive: true,
      });
      Deno.writeTextFileSync(
        `${sysfs}/kernel/iommu_groups/${number}/reserved_regions`,
        RESERVED,
      );
      Deno.symlinkSync(
        `../../../kernel/iommu_groups/${number}`,
        `${sysfs}/${folder}/iommu_group`,
      );
      this.#place(sysfs, FILES[i], `${folder}/vfio-dev/vfio${i}`);
      const group = fakeGroups.get(number)!;
      return { address, device: this.kernel.openDevice({ file: this.#open(FILES[i]), group }) };
    });
    for (const each of strangers) {
      Deno.mkdirSync(`${sysfs}/kernel/iommu_groups/${groups[0]}/devices/${each}`);
    }
    const { kernel } = this;
    const numbers = this.#numbers;
    // Whatever descriptor it comes through, it is the same open file.
    function known(number: number): number {
      const status = descriptorStatus(number);
      return (typeof status === "number" ? undefined : numbers.get(status.deviceNumber)) ?? number;
    }
    this.places = {
      sysfs,
      calls: {
        ioctl: (number, request, argument) => kernel.ioctl(known(number), request, argument),
        read: (number, offset, target) => kernel.read(known(number), offset, target),
      },
    };
  }

  /** A new descriptor of `/dev/iommu`, always for the same open file. */
  iommufd(): Descriptor {
    return this.#kept[0].duplicate();
  }

  /** A new descriptor of a device, always for the same open file. */
  file(index: number): Descriptor {
    return this.#kept[index + 1].duplicate();
  }

  /** Does what a VMM does: binds all devices, and attaches them to an address space of its own. */
  bind(): void {
    this.#vmms = undefined;
    for (const { device } of this.devices) {
      this.#vmms = this.kernel.bind(device, this.#iommufd, this.#vmms);
    }
  }

  /** The VMM attaches a device to its address space again, as one that was plugged in. */
  attachToVmms(index: number): void {
    const { device } = this.devices[index];
    const id = this.#iommufd.idOf(this.#vmms!);
    const structure = new Uint8Array(new Uint32Array([12, 0, id]).buffer);
    const errno = this.kernel.ioctl(device.file.number, VFIO_ATTACH, structure);
    if (errno !== 0) throw new Error(`Cannot attach a device as a VMM: error ${errno}`);
  }

  /** The VMM has ended, and every other copy of its files is closed: the devices are free. */
  unbind(): void {
    for (const { device } of this.devices) device.owner = null;
  }

  #open(path: string): Descriptor {
    const descriptor = new Descriptor(libc().open(cString(path), O_RDWR | O_CLOEXEC, 0));
    const status = descriptorStatus(descriptor.number);
    if (typeof status === "number") throw new Error(`Cannot look at ${path}`);
    this.#numbers.set(status.deviceNumber, descriptor.number);
    this.#kept.push(descriptor);
    return descriptor;
  }

  /** Says in sysfs what a character device is. */
  #place(sysfs: string, path: string, folder: string): void {
    using file = new Descriptor(libc().open(cString(path), O_RDWR | O_CLOEXEC, 0));
    const status = descriptorStatus(file.number);
    if (typeof status === "number") throw new Error(`Cannot look at ${path}`);
    Deno.mkdirSync(`${sysfs}/dev/char`, { recursive: true });
    Deno.symlinkSync(`../../${folder}`, `${sysfs}/dev/char/${status.deviceNumber}`);
  }

  [Symbol.dispose](): void {
    this.kernel[Symbol.dispose]();
    for (const each of this.#kept) if (each.isOpen) each.close();
    Deno.removeSync(this.places.sysfs, { recursive: true });
  }
}
