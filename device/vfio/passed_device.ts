/**
 * A device of the host behind an endpoint, and its IOMMU group.
 *
 * The host's IOMMU does not tell the devices of a group apart. The kernel lets each be attached and detached by itself, but:
 * attaching one that is attached elsewhere moves the whole group without a word; attaching one that is detached is EINVAL
 * if the group is elsewhere; and one that is detached still reaches what the rest of its group does. Which of that is
 * allowed the model decides, which knows the endpoints: it moves all devices of a group, one after the other. Here is
 * recorded which devices have moved with the others, so that they are stopped with them.
 */
import { EINVAL, ENOMEM, type Errno, OK, type PageTable } from "../../pagetable/mod.ts";
import { endpointText } from "../address.ts";
import { errnoName } from "../host/mod.ts";
import type { HostDevice } from "../iommu/host_devices.ts";
import type { Log } from "../log.ts";
import { EIO } from "./error_numbers.ts";
import type { Ioas } from "./ioas.ts";
import type { Attached, KernelIommu } from "./kernel_iommu.ts";
import type { KernelTable } from "./kernel_table.ts";
import type { VfioDevice } from "./vfio_device.ts";

/** The devices of one IOMMU group of the host that are ours. */
export class HostGroup {
  /** Its number on the host. */
  readonly number: number;
  /** Its devices. */
  readonly devices: PassedDevice[] = [];
  /** Whether it is where the VMM has attached it, at all guest RAM: nothing of ours was attached or stopped yet. */
  isUntouched = true;

  /** A group without devices. */
  constructor(number: number) {
    this.number = number;
  }
}

/** What a {@linkcode PassedDevice} is made of. */
export interface PassedDeviceParts {
  /** The endpoint's id. */
  readonly endpoint: number;
  /** The VMM's `/dev/iommu`. */
  readonly iommu: KernelIommu;
  /** Its group; the device adds itself. */
  readonly group: HostGroup;
  /** Its file. */
  readonly file: VfioDevice;
  /** Where failures are logged. */
  readonly log: Log;
}

/** A device of the host behind an endpoint. */
export class PassedDevice implements HostDevice, Attached {
  readonly endpoint: number;
  readonly iommu: KernelIommu;
  readonly #group: HostGroup;
  readonly #file: VfioDevice;
  readonly #log: Log;
  /** Where it was attached on its own account, or null. */
  #own: KernelTable | null = null;

  /** A device that the VMM has attached, or will. */
  constructor({ endpoint, iommu, group, file, log }: PassedDeviceParts) {
    this.endpoint = endpoint;
    this.iommu = iommu;
    this.#group = group;
    this.#file = file;
    this.#log = log;
    group.devices.push(this);
    iommu.addDevice(this);
  }

  get group(): number {
    return this.#group.number;
  }

  get isBound(): boolean {
    return this.#file.isBound;
  }

  get isBusMaster(): boolean {
    return this.#file.isBusMaster;
  }

  attach(table: PageTable): Errno {
    return this.#attach(table as KernelTable);
  }

  /** As the interface says. Before anything else was asked for, that is where the VMM has attached it itself. */
  bypass(): Errno {
    if (this.#group.isUntouched) return OK;
    const table = this.iommu.bypassTable();
    if (typeof table === "number") return table;
    return this.#attach(table);
  }

  block(): void {
    this.#own = null;
    this.#group.isUntouched = false;
    // Those that follow the group would keep this one attached with it.
    for (const device of this.#group.devices) if (device.#own === null) device.#detach();
  }

  detach(): void {
    this.#own = null;
    this.#detach();
  }

  stopAt(table: KernelTable): void {
    if (this.#group.devices.some((device) => device.#own === table)) this.block();
  }

  /** Its files are about to be closed: it is no device of its group and of its IOMMU any more. */
  leave(): void {
    const { devices } = this.#group;
    devices.splice(devices.indexOf(this), 1);
    this.iommu.removeDevice(this);
  }

  #attach(table: KernelTable): Errno {
    const space = this.iommu.spaceOf(table);
    const errno = this.#file.attach(space.id);
    if (errno !== OK) return this.#refused(errno, space);
    this.#group.isUntouched = false;
    this.#own = table;
    // Those that were elsewhere have gone with it.
    for (const device of this.#group.devices) if (device.#own !== table) device.#own = null;
    return OK;
  }

  #refused(errno: Errno, space: Ioas): Errno {
    if (errno === ENOMEM) space.refusedAttach();
    // Not the guest's fault, unlike any other EINVAL.
    const isUnbound = errno === EINVAL && !this.#file.isBound;
    this.#log.warnLimited(
      "attach",
      `The kernel refuses to attach endpoint ${endpointText(this.endpoint)}: ${errnoName(errno)}${
        isUnbound ? "; the VMM has not bound the device" : ""
      }`,
    );
    return isUnbound ? EIO : errno;
  }

  #detach(): void {
    const errno = this.#file.detach();
    // One that is not bound accesses nothing.
    if (errno === OK || (errno === EINVAL && !this.#file.isBound)) return;
    this.#log.errorLimited(
      "detach",
      `Cannot stop endpoint ${endpointText(this.endpoint)}: ${errnoName(errno)}`,
    );
  }
}
