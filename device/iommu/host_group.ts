/**
 * One IOMMU group of the host, and what its devices are attached to.
 *
 * The host attaches all devices of a group to one I/O address space: attaching one moves the others. So they are moved
 * together here, and what is known is known of the group.
 */
import { type Errno, OK } from "../../pagetable/mod.ts";
import type { HostDevice, HostIommu, HostTable } from "./host_devices.ts";

/** What the devices of a group are moved to. */
export type HostTarget = HostTable | "bypass" | "blocked";

/**
 * What they are attached to. `vmm`: what the VMM has attached them to, all guest RAM, since nothing here has moved them.
 * `cut`: blocked when the session ended; a VMM may have attached them since.
 */
export type HostPlace = HostTarget | "vmm" | "cut";

/** The devices of one group. */
export class HostGroup {
  /** The host's number of the group. */
  readonly number: number;
  /** What makes I/O address spaces for its devices. */
  readonly iommu: HostIommu;
  #devices: readonly HostDevice[];
  #place: HostPlace = "vmm";

  /** A group of one device, which the VMM has attached or will attach. */
  constructor(device: HostDevice) {
    this.number = device.group;
    this.iommu = device.iommu;
    this.#devices = [device];
  }

  /** Its devices. */
  get devices(): readonly HostDevice[] {
    return this.#devices;
  }

  /** What they are attached to. */
  get place(): HostPlace {
    return this.#place;
  }

  /** Whether it is the VMM that attached them last, as far as is known. */
  get isVmms(): boolean {
    return this.#place === "vmm" || this.#place === "cut";
  }

  /** Adds a device, which goes where the others are. After an error it is not added. */
  add(device: HostDevice): Errno {
    const place = this.#place;
    const error = place === "vmm" || place === "cut" ? OK : put(device, place);
    if (error === OK) this.#devices = [...this.#devices, device];
    return error;
  }

  /** Removes a device, which is blocked, or at least detached, so that it does not keep the others where they are. */
  remove(device: HostDevice): void {
    this.#devices = this.#devices.filter((other) => other !== device);
    this.release(device);
  }

  /** Stops a device that is none of the group, or is about to be removed: the others stay where they are. */
  release(device: HostDevice): void {
    if (this.#devices.some((other) => other !== device)) device.detach();
    else device.block();
  }

  /**
   * Moves all devices.
   *
   * @returns OK, or the error of one of them: then they are where they were, or, if they could not be moved back, blocked.
   */
  move(target: HostTarget): Errno {
    const from = this.#place;
    if (from === target) return OK;
    for (const device of this.#devices) {
      const error = put(device, target);
      if (error === OK) continue;
      // The first has moved the group, whichever device the group loses the way on.
      if (device !== this.#devices[0]) this.#moveBack(from);
      return error;
    }
    this.#place = target;
    return OK;
  }

  /** The session ends: blocks all devices at once. */
  cut(): void {
    if (this.#place === "cut") return;
    for (const device of this.#devices) device.block();
    this.#place = "cut";
  }

  #moveBack(to: HostPlace): void {
    if (to !== "vmm" && to !== "cut" && this.#devices.every((device) => put(device, to) === OK)) {
      return;
    }
    for (const device of this.#devices) device.block();
    this.#place = "blocked";
  }
}

/** Moves one device. */
function put(device: HostDevice, target: HostTarget): Errno {
  if (target === "bypass") return device.bypass();
  if (target !== "blocked") return device.attach(target);
  device.block();
  return OK;
}
