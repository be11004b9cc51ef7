/**
 * The devices of the host that are open at present: they come and go one by one, and share what they have in common.
 *
 * The VMM has the same open files. It binds the devices and attaches them to all of the guest's RAM; from the guest's first
 * ATTACH on they are attached to what the guest says. Devices that the VMM has bound to one open `/dev/iommu` share its I/O
 * address spaces, through whatever descriptors it has come here; so those are compared by file, not by number.
 */
import { endpointText, sizeText } from "../address.ts";
import { type Descriptor, deviceFolder, isSameFile, lockLimit } from "../host/mod.ts";
import type { HostDevice } from "../iommu/host_devices.ts";
import type { Log } from "../log.ts";
import { type DeviceCalls, HOST_CALLS } from "./iommufd.ts";
import { KernelIommu } from "./kernel_iommu.ts";
import { ModelDevice } from "./model_device.ts";
import { HostGroup, PassedDevice } from "./passed_device.ts";
import { type PciDevice, readPciDevice } from "./pci_device.ts";
import { VfioDevice } from "./vfio_device.ts";

/** Where the host is. */
export interface HostPlaces {
  /** The kernel. */
  readonly calls: DeviceCalls;
  /** Where sysfs is mounted. */
  readonly sysfs: string;
}

/** The open files of a device; they are its own to close. */
export interface DeviceFiles {
  /** `/dev/iommu`, to which the VMM binds the device. */
  readonly iommufd: Descriptor;
  /** `/dev/vfio/devices/vfioN`. */
  readonly device: Descriptor;
}

const THIS_HOST: HostPlaces = { calls: HOST_CALLS, sysfs: "/sys" };

/** What the files are, and where sysfs has them. */
const FILES = {
  iommufd: { what: "/dev/iommu", place: /\/misc\/iommu$/ },
  device: { what: "/dev/vfio/devices/vfioN", place: /\/vfio-dev\/vfio\d+$/ },
};

/** An open `/dev/iommu`. */
interface OpenIommu {
  readonly iommu: KernelIommu;
  readonly file: Descriptor;
  /** Devices that use it. */
  users: number;
}

/** An open device. */
export class OpenDevice {
  /** What the model attaches. */
  readonly device: HostDevice;
  /** Called once, to give back what is shared. */
  readonly #onClose: (open: OpenDevice) => void;
  readonly #passed: PassedDevice;
  readonly #pci: PciDevice;
  #isClosed = false;

  /** A device that is open. */
  constructor(passed: PassedDevice, pci: PciDevice, onClose: (open: OpenDevice) => void) {
    this.#passed = passed;
    this.#pci = pci;
    this.#onClose = onClose;
    this.device = new ModelDevice(passed, pci.reserved);
  }

  /** Its PCI address on the host, such as `0000:01:00.0`. */
  get address(): string {
    return this.#pci.name;
  }

  /** PCI addresses of the others of its group, without bridges. */
  get siblings(): readonly string[] {
    return this.#pci.members.filter((each) => each !== this.#pci.name);
  }

  /** Whether the VMM has bound it. */
  get isBound(): boolean {
    return !this.#isClosed && this.#passed.isBound;
  }

  /** Closes its files; the model has given it back before. Does nothing the second time. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#onClose(this);
  }
}

/** The devices that are open. */
export class HostDevices {
  readonly #log: Log;
  readonly #host: HostPlaces;
  readonly #iommus: OpenIommu[] = [];
  readonly #groups = new Map<number, HostGroup>();
  readonly #open = new Set<OpenDevice>();
  #isLimitTold = false;

  /** None is open yet. */
  constructor(log: Log, host: HostPlaces = THIS_HOST) {
    this.#log = log;
    this.#host = host;
  }

  /** What keeps an open file from being one of a device, as the end of a line; nothing if it is right. */
  problemOf(number: number, file: keyof DeviceFiles): string | undefined {
    const found = deviceFolder(number, FILES[file].place, this.#host.sysfs);
    return typeof found === "string" ? `it cannot be ${FILES[file].what}: ${found}` : undefined;
  }

  /**
   * Takes over the files of a device.
   *
   * @throws {RangeError} If they are something else, or the device is open already: one line. They are closed then, too.
   */
  open(endpoint: number, files: DeviceFiles): OpenDevice {
    try {
      const pci = this.#check(endpoint, files);
      return this.#add(endpoint, files, pci);
    } catch (error) {
      files.iommufd.close();
      files.device.close();
      throw error;
    }
  }

  #check(endpoint: number, files: DeviceFiles): PciDevice {
    const problem = this.problemOf(files.iommufd.number, "iommufd") ??
      this.problemOf(files.device.number, "device");
    const name = endpointText(endpoint);
    if (problem !== undefined) {
      throw new RangeError(`Cannot pass a device through as endpoint ${name}: ${problem}`);
    }
    const { place } = FILES.device;
    const found = deviceFolder(files.device.number, place, this.#host.sysfs);
    const pci = readPciDevice(typeof found === "string" ? "" : found.folder);
    const other = [...this.#open].find(({ address }) => address === pci.name);
    if (other === undefined) return pci;
    throw new RangeError(
      `Cannot pass device ${pci.name} through as endpoint ${name}: ` +
        `it is that of endpoint ${endpointText(other.device.endpoint)}`,
    );
  }

  #add(endpoint: number, files: DeviceFiles, pci: PciDevice): OpenDevice {
    const shared = this.#iommuOf(files.iommufd);
    shared.users++;
    let group = this.#groups.get(pci.group);
    if (group === undefined) this.#groups.set(pci.group, group = new HostGroup(pci.group));
    const file = new VfioDevice(files.device, this.#host.calls);
    const { iommu } = shared;
    const passed = new PassedDevice({ endpoint, iommu, group, file, log: this.#log });
    const open = new OpenDevice(passed, pci, () => {
      this.#open.delete(open);
      passed.leave();
      if (group.devices.length === 0) this.#groups.delete(pci.group);
      files.device.close();
      this.#release(shared);
    });
    this.#open.add(open);
    this.#describe(open, pci.group);
    return open;
  }

  /** What is shared by all devices of an open `/dev/iommu`; takes the descriptor over. */
  #iommuOf(file: Descriptor): OpenIommu {
    const known = this.#iommus.find((each) => isSameFile(each.file, file));
    if (known !== undefined) {
      file.close();
      return known;
    }
    const iommu = new KernelIommu(file, this.#host.calls, this.#log);
    const shared = { iommu, file, users: 0 };
    this.#iommus.push(shared);
    return shared;
  }

  #release(shared: OpenIommu): void {
    if (--shared.users > 0) return;
    this.#iommus.splice(this.#iommus.indexOf(shared), 1);
    shared.iommu.dropBypass();
    shared.iommu.closed();
    shared.file.close();
  }

  /** Logs which device is which endpoint, and what of it an operator must know. */
  #describe(open: OpenDevice, group: number): void {
    const { address, siblings, device: { endpoint } } = open;
    const name = endpointText(endpoint);
    this.#log.info(
      `Endpoint ${name} is device ${address} of the host, IOMMU group ${group}; ` +
        "its faults are in the kernel's log only, the guest is told of none",
    );
    const ours = [...this.#open].filter((each) => siblings.includes(each.address));
    for (const other of ours) {
      this.#log.warn(
        `Endpoints ${
          endpointText(other.device.endpoint)
        } and ${name} are in IOMMU group ${group} of the host: ` +
          "the guest can attach them to one domain only, and a DETACH of one blocks both",
      );
    }
    const others = siblings.filter((each) => !ours.some((one) => one.address === each));
    if (others.length > 0) {
      this.#log.warn(
        `${
          others.join(", ")
        } of IOMMU group ${group} of the host, no endpoint so far, can access whatever endpoint ` +
          `${name} can, and the other way round`,
      );
    }
    const limit = lockLimit();
    if (limit === Infinity || this.#isLimitTold) return;
    this.#isLimitTold = true;
    this.#log.warn(
      `Locked memory is limited to ${
        sizeText(limit)
      } (RLIMIT_MEMLOCK), the VMM's included: it must hold the guest's ` +
        "RAM, which the VMM pins, and what the guest maps (ulimit -l, LimitMEMLOCK= of systemd, or CAP_IPC_LOCK)",
    );
  }
}
