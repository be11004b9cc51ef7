/**
 * The devices of the host that are passed through to one guest: their open files, taken over from whoever started the
 * process, and what the model has to know of them.
 *
 * The VMM has the same open files. It binds the devices and attaches them to all of the guest's RAM; from the guest's first
 * ATTACH on they are attached to what the guest says. The VMM does not notice, and never undoes it.
 */
import { ENOENT, type Errno } from "../../pagetable/mod.ts";
import { endpointText } from "../address.ts";
import {
  type Descriptor,
  type InheritedDevice,
  inheritedDevice,
  SharedMemory,
} from "../host/mod.ts";
import { type ReservedRegion, RESV_MEM_MSI, RESV_MEM_RESERVED } from "../iommu/reserved_region.ts";
import type { Log } from "../log.ts";
import { HOST_CALLS, type KernelCalls } from "./iommufd.ts";
import { KernelIommu } from "./kernel_iommu.ts";
import type { Aperture } from "./kernel_table.ts";
import { HostGroup, PassedDevice } from "./passed_device.ts";
import { type PciDevice, readPciDevice } from "./pci_device.ts";
import { VfioDevice } from "./vfio_device.ts";

/** A device to be passed through. Numbers are those of inherited descriptors. */
export interface PassedDeviceOptions {
  /** The endpoint's id. */
  readonly endpoint: number;
  /** The open `/dev/vfio/devices/vfioN`. */
  readonly device: number;
  /** The open `/dev/iommu` that the VMM binds it to; several devices may name the same. */
  readonly iommufd: number;
}

/** Where the host is. */
export interface HostPlaces {
  /** The kernel. */
  readonly calls: KernelCalls;
  /** Where sysfs is mounted. */
  readonly sysfs: string;
}

const THIS_HOST: HostPlaces = { calls: HOST_CALLS, sysfs: "/sys" };

/** A device with what sysfs says of it. */
interface KnownDevice {
  readonly passed: PassedDevice;
  readonly pci: PciDevice;
  readonly file: Descriptor;
}

/** The devices that are passed through to one guest. */
export class Passthrough {
  readonly #devices: readonly KnownDevice[];
  readonly #iommus: readonly KernelIommu[];
  readonly #files: readonly Descriptor[];

  private constructor(
    devices: readonly KnownDevice[],
    iommus: readonly KernelIommu[],
    files: readonly Descriptor[],
  ) {
    this.#devices = devices;
    this.#iommus = iommus;
    this.#files = files;
  }

  /**
   * Takes over the files. Files of guest memory are kept open from now on ({@linkcode SharedMemory.keepsFiles}), so this
   * comes before the first of it.
   *
   * @throws {RangeError} With one line, if a number is no such file, or a device, its number or its endpoint is there twice.
   */
  static open(
    options: readonly PassedDeviceOptions[],
    log: Log,
    host: HostPlaces = THIS_HOST,
  ): Passthrough {
    const iommus = new Map<number, KernelIommu>();
    const groups = new Map<number, HostGroup>();
    const files: Descriptor[] = [];
    const devices: KnownDevice[] = [];
    const folders = new Map<string, number>();
    function take(number: number, place: RegExp, expected: string): InheritedDevice {
      const taken = inheritedDevice(number, place, expected, host.sysfs);
      files.push(taken.descriptor);
      return taken;
    }
    try {
      for (const { endpoint, device, iommufd } of options) {
        const name = endpointText(endpoint);
        if (devices.some(({ passed }) => passed.endpoint === endpoint)) {
          throw new RangeError(`Cannot pass two devices through as endpoint ${name}`);
        }
        let iommu = iommus.get(iommufd);
        if (iommu === undefined) {
          const { descriptor } = take(iommufd, /\/misc\/iommu$/, "/dev/iommu");
          iommu = new KernelIommu(descriptor, host.calls, log);
          iommus.set(iommufd, iommu);
        }
        const used = files.some(({ number }) => number === device);
        if (used) {
          throw new RangeError(
            `Cannot use descriptor ${device} for endpoint ${name}: it is used already`,
          );
        }
        const place = /\/vfio-dev\/vfio\d+$/;
        const { descriptor, folder } = take(device, place, "/dev/vfio/devices/vfioN");
        const before = folders.get(folder);
        if (before !== undefined) {
          throw new RangeError(
            `Cannot use descriptor ${device} for endpoint ${name}: it is the device of descriptor ${before}`,
          );
        }
        folders.set(folder, device);
        const pci = readPciDevice(folder);
        let group = groups.get(pci.group);
        if (group === undefined) groups.set(pci.group, group = new HostGroup(pci.group));
        const file = new VfioDevice(descriptor, host.calls);
        devices.push({
          passed: new PassedDevice({ endpoint, iommu, group, file, log }),
          pci,
          file: descriptor,
        });
      }
    } catch (error) {
      for (const file of files) file.close();
      throw error;
    }
    if (devices.length > 0) SharedMemory.keepsFiles = true;
    const opened = new Passthrough(devices, [...iommus.values()], files);
    opened.#describe(log);
    return opened;
  }

  /** The devices, for the model. */
  get devices(): readonly PassedDevice[] {
    return this.#devices.map(({ passed }) => passed);
  }

  /** The ranges that the host reserves, each for its endpoint, which must have no others. */
  get reserved(): readonly ReservedRegion[] {
    return this.#devices.flatMap(({ passed, pci }) =>
      pci.reserved.map(({ firstPage, lastPage, isMsi }) => ({
        firstPage,
        lastPage,
        subtype: isMsi ? RESV_MEM_MSI : RESV_MEM_RESERVED,
        firstEndpoint: passed.endpoint,
        lastEndpoint: passed.endpoint,
      }))
    );
  }

  /**
   * What every device can translate: the guest must be told of no wider range, and of no smaller page.
   *
   * @returns ENOENT before the VMM has bound all devices, and without any; the error of a call otherwise.
   */
  aperture(): Aperture | Errno {
    let all: Aperture | undefined;
    for (const iommu of this.#iommus) {
      const one = iommu.aperture();
      if (typeof one === "number") return one;
      all = {
        firstPage: Math.max(one.firstPage, all?.firstPage ?? 0),
        lastPage: Math.min(one.lastPage, all?.lastPage ?? Infinity),
        leafOrder: Math.max(one.leafOrder, all?.leafOrder ?? 0),
      };
    }
    return all ?? ENOENT;
  }

  /**
   * The VMM is gone, or lets a guest go: stops every device at once and drops bypass. What domains hold stays theirs.
   *
   * @param closesFiles Whether the VMM will not come back: a device is free for others only once every copy of its open file
   * is closed. Nothing is asked of the kernel afterwards.
   */
  release(closesFiles: boolean): void {
    for (const { passed } of this.#devices) passed.block();
    for (const iommu of this.#iommus) iommu.dropBypass();
    if (!closesFiles) return;
    for (const iommu of this.#iommus) iommu.closed();
    for (const file of this.#files) file.close();
  }

  /**
   * Stops one device and closes its file, as the VMM does when it is unplugged: until then nobody else can use it.
   *
   * @returns Whether there is one behind the endpoint.
   */
  releaseDevice(endpoint: number): boolean {
    const known = this.#devices.find(({ passed }) => passed.endpoint === endpoint);
    if (known === undefined) return false;
    known.passed.block();
    known.file.close();
    return true;
  }

  /** Logs which device is which endpoint, and what of their groups an operator must know. */
  #describe(log: Log): void {
    const groups = new Map<number, KnownDevice[]>();
    for (const device of this.#devices) {
      const { passed, pci } = device;
      const text = `${
        endpointText(passed.endpoint)
      } is device ${pci.name} of the host, IOMMU group ${pci.group}`;
      log.info(`Endpoint ${text}`);
      groups.set(pci.group, [...groups.get(pci.group) ?? [], device]);
    }
    for (const [number, known] of groups) {
      const group = `IOMMU group ${number} of the host`;
      const endpoints = known.map(({ passed }) => endpointText(passed.endpoint)).join(", ");
      if (known.length > 1) {
        log.warn(
          `Endpoints ${endpoints} are in ${group}: the guest can attach them to one domain only`,
        );
      }
      const ours = known.map(({ pci }) => pci.name);
      const others = known[0].pci.members.filter((name) => !ours.includes(name));
      if (others.length > 0) {
        log.warn(
          `${
            others.join(", ")
          } in ${group} can access whatever endpoint ${endpoints} can, and the other way round`,
        );
      }
    }
  }
}
