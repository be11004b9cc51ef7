/**
 * The devices of the host that are passed through, and what each is attached to: it always follows from the state of
 * its endpoint.
 *
 * - Attached to a domain: the domain's I/O address space of the host; all guest RAM, if it is a bypass domain.
 * - Attached to nothing: all guest RAM if the bypass byte says so and `GuestLife` does not block the endpoint; otherwise
 *   nothing. What the VMM has attached a device to is its bypass until something else is called for, and a device that
 *   has to be blocked is left to the VMM until the request queue starts: a VMM attaches devices when it makes them.
 * - No session: nothing. A device of a VMM that has ended would go on to access memory.
 *
 * Devices of one host group are always together ({@linkcode HostGroup}). They may be attached to one domain only, or to any
 * bypass domains. One
 * whose endpoint is attached to nothing goes with those that are attached. When one is detached while others are
 * attached, all are blocked (D4), and the others' endpoints are blocked in the device tables, too, until an ATTACH names
 * one of them and their domain again.
 */
import { EADDRINUSE, EINVAL, ENOMEM, EOPNOTSUPP, type Errno, OK } from "../../pagetable/mod.ts";
import { EBUSY } from "../../iommufd/mod.ts";
import type { MemoryRegion } from "../../vring/mod.ts";
import { endpointText, LAST_PAGE } from "../address.ts";
import type { Attachable, Endpoint, EndpointTable } from "./endpoint_table.ts";
import type { GuestLife } from "./guest_life.ts";
import type { Hardware, TranslatedEndpoint } from "./hardware.ts";
import type { HostDevice, HostIommu, HostTable } from "./host_devices.ts";
import { HostGroup, type HostTarget } from "./host_group.ts";
import type { IotlbListeners } from "./iotlb_listeners.ts";

/** What the devices of endpoints must know of the domain that those are attached to. */
export interface HostDomain extends Attachable {
  /** Its id. */
  readonly id: number;
  /** Whether its endpoints go through untranslated. */
  readonly bypass: boolean;
  /** Its I/O address space of a host IOMMU, if an endpoint with a device there is attached. */
  hostTable(iommu: HostIommu): HostTable | undefined;
  /** Points the device tables of one of its endpoints to it. */
  point(endpoint: TranslatedEndpoint): Errno;
}

/** What the registry depends on. */
export interface HostRegistryParts<D extends HostDomain> {
  /** Which endpoints there are, and where they are attached. */
  readonly endpoints: EndpointTable<D>;
  /** The device tables. */
  readonly hardware: Hardware;
  /** Which endpoints are blocked. */
  readonly life: GuestLife;
  /** The bypass byte. */
  readonly config: { readonly bypass: boolean };
  /** What keeps translations. */
  readonly iotlbListeners: IotlbListeners;
}

/** The devices of one virtio-iommu, with domains of class `D`. */
export class HostRegistry<D extends HostDomain> {
  /** Called with a line for the log when a device is blocked that its guest expects to work. */
  onWarning: (line: string) => void = () => {};
  readonly #parts: HostRegistryParts<D>;
  /** The groups, by their number. */
  readonly #groups = new Map<number, HostGroup>();
  readonly #byEndpoint = new Map<number, HostDevice>();
  /** The RAM that there is. */
  readonly #regions = new Set<MemoryRegion>();
  /** Whether the request queue has started in this session. */
  #isStarted = false;
  /** Whether it has stopped since. */
  #isStopped = false;

  /** Without devices. */
  constructor(parts: HostRegistryParts<D>) {
    this.#parts = parts;
  }

  /** How many devices there are. */
  get size(): number {
    return this.#byEndpoint.size;
  }

  /** The devices. */
  get devices(): Iterable<HostDevice> {
    return this.#byEndpoint.values();
  }

  /** The device of an endpoint, if it has one. */
  of(endpoint: number): HostDevice | undefined {
    return this.#byEndpoint.get(endpoint);
  }

  /** What the device of an endpoint is attached to, for people: `domain` for an I/O address space of its group's domain. */
  placeOf(endpoint: number): "vmm" | "domain" | "bypass" | "blocked" | undefined {
    const place = this.#groupOf(endpoint)?.place;
    return place === "cut" ? "blocked" : typeof place === "object" ? "domain" : place;
  }

  /**
   * Checks that a device can be added.
   *
   * @throws {RangeError} If its endpoint does not exist or has a device, or others of its group are of another host IOMMU.
   */
  check({ endpoint, group: number, iommu }: HostDevice): void {
    const name = endpointText(endpoint);
    if (this.#parts.endpoints.formatOf(endpoint) === undefined) {
      throw new RangeError(
        `Cannot pass a device through as endpoint ${name}: there is no such endpoint`,
      );
    }
    if (this.#byEndpoint.has(endpoint)) {
      throw new RangeError(`Cannot pass a second device through as endpoint ${name}`);
    }
    const group = this.#groups.get(number);
    if (group === undefined || group.iommu === iommu) return;
    throw new RangeError(
      `Cannot pass a device through as endpoint ${name}: ` +
        `others of host group ${number} have another host IOMMU`,
    );
  }

  /** Tells a host IOMMU that has no devices yet of all RAM, before its first one is added. */
  enter(iommu: HostIommu): void {
    if (this.#uses(iommu)) return;
    for (const region of this.#regions) iommu.memoryAdded(region);
  }

  /**
   * Adds a device that was checked. If its endpoint is attached to a domain, that has the I/O address space already.
   *
   * @returns OK; EOPNOTSUPP if one of its group is attached to another domain; an error of attaching it. After an error it is
   * not added.
   */
  add(device: HostDevice): Errno {
    const { endpoint: id, group: number } = device;
    const { endpoints } = this.#parts;
    let group = this.#groups.get(number);
    const domain = endpoints.seen(id)?.domain;
    if (
      group !== undefined && domain !== undefined &&
      this.#isElsewhere(group, id, domain, domain.bypass)
    ) {
      return EOPNOTSUPP;
    }
    if (group === undefined) {
      group = new HostGroup(device);
      this.#groups.set(number, group);
    } else {
      const error = group.add(device);
      if (error !== OK) return error;
    }
    this.#byEndpoint.set(id, device);
    if (domain === undefined) {
      this.#follow(group);
      return OK;
    }
    const error = this.attach(id, domain);
    if (error !== OK) this.remove(device);
    else this.#settle(group);
    return error;
  }

  /** Removes a device, which is blocked. Behind this its domain gives up the I/O address space; {@linkcode leave} is last. */
  remove(device: HostDevice): void {
    const { endpoint, group: number } = device;
    const group = this.#groups.get(number);
    if (group === undefined || this.#byEndpoint.get(endpoint) !== device) return;
    this.#byEndpoint.delete(endpoint);
    group.remove(device);
    if (group.devices.length > 0) this.#follow(group);
    else this.#groups.delete(number);
    // No device of the host keeps it from its domain any more.
    const state = this.#parts.endpoints.seen(endpoint);
    if (state?.isBlocked === true && state.domain !== undefined) this.#unblock(state, state.domain);
  }

  /** Stops a device that could not be added, or is to be removed as soon as that can be: others of its group go on. */
  release(device: HostDevice): void {
    const group = this.#groups.get(device.group);
    if (group === undefined) device.block();
    else group.release(device);
  }

  /** Takes all RAM from a host IOMMU that has no devices any more. */
  leave(iommu: HostIommu): void {
    if (this.#uses(iommu)) return;
    for (const region of this.#regions) iommu.memoryRemoved(region);
  }

  /** Guest RAM was added. */
  memoryAdded(region: MemoryRegion): void {
    this.#regions.add(region);
    for (const iommu of this.#iommus()) iommu.memoryAdded(region);
  }

  /** Guest RAM is removed, and no domain leads to it any more. */
  memoryRemoved(region: MemoryRegion): void {
    this.#regions.delete(region);
    for (const iommu of this.#iommus()) iommu.memoryRemoved(region);
  }

  /**
   * Whether a device of the endpoint's host group is attached to another domain than `domain`, which may be a new one. Bypass
   * domains are all the same to devices: Linux makes one for each of its own groups.
   */
  isRefused(endpoint: number, domain: D | undefined, bypass: boolean): boolean {
    const group = this.#groupOf(endpoint);
    return group !== undefined && this.#isElsewhere(group, endpoint, domain, bypass);
  }

  /**
   * Attaches the device of an endpoint, and those of its group with it, to what a domain is.
   *
   * @returns EADDRINUSE if a mapping is in a reserved range of the device; EOPNOTSUPP if the host cannot attach it there;
   * ENOMEM; EBUSY for all that is not the guest's fault. After an error nothing has changed, or the group is blocked.
   */
  attach(endpoint: number, domain: D): Errno {
    const group = this.#groupOf(endpoint);
    if (group === undefined) return OK;
    const error = group.move(targetIn(domain, group));
    switch (error) {
      case OK:
      case EADDRINUSE:
      case ENOMEM:
        return error;
      case EINVAL:
        return EOPNOTSUPP;
      default:
        return EBUSY;
    }
  }

  /** An endpoint was attached: what its group's devices reach is what device tables say from now on. */
  settle(endpoint: number): void {
    const group = this.#groupOf(endpoint);
    if (group !== undefined) this.#settle(group);
  }

  /** The device of an endpoint, and those of its group with it, go to where the states of their endpoints say. */
  follow(endpoint: number): void {
    const group = this.#groupOf(endpoint);
    if (group !== undefined) this.#follow(group);
  }

  /**
   * An endpoint was detached. D4, 5.13.6.4.2: "The device MUST ensure that after being detached from a domain, the endpoint
   * cannot access any mapping from that domain." If others of its group are attached, all are blocked.
   */
  detached(endpoint: number): void {
    const group = this.#groupOf(endpoint);
    if (group === undefined) return;
    const { endpoints } = this.#parts;
    const areOthers = group.devices.some(({ endpoint: id }) =>
      endpoints.seen(id)?.domain !== undefined
    );
    if (!areOthers) {
      this.#follow(group);
      return;
    }
    group.move("blocked");
    this.#settle(group);
  }

  /** All domains have ended: moves the devices away that were attached to them. */
  domainsEnded(): void {
    const { endpoints } = this.#parts;
    for (const group of this.#groups.values()) {
      if (group.devices.some(({ endpoint }) => endpoints.seen(endpoint)?.isLeaving)) {
        this.#follow(group);
      }
    }
  }

  /** Attaches the devices of the endpoints of a domain that was built. Returns the first error. */
  followDomain(domain: D): Errno {
    const { endpoints } = this.#parts;
    for (const { devices } of this.#groups.values()) {
      for (const { endpoint } of devices) {
        if (endpoints.seen(endpoint)?.domain !== domain) continue;
        const error = this.attach(endpoint, domain);
        this.settle(endpoint);
        if (error !== OK) return error;
      }
    }
    return OK;
  }

  /** The bypass byte or what is known of the guest has changed: every device follows. */
  followAll(): void {
    for (const group of this.#groups.values()) this.#follow(group);
  }

  /** The request queue runs. */
  start(): void {
    this.#isStarted = true;
    this.#isStopped = false;
    this.followAll();
  }

  /** The request queue has stopped: the machine pauses, or is being reset. */
  stop(): void {
    this.#isStopped = this.#isStarted;
  }

  /** Whether a device is in a domain while the request queue is stopped: {@linkcode letFirmwarePass} is to be called now and then. */
  get mayBeReset(): boolean {
    if (!this.#isStopped || !this.#parts.config.bypass) return false;
    for (const { place } of this.#groups.values()) if (typeof place === "object") return true;
    return false;
  }

  /**
   * Attaches devices to bypass that have been reset since the request queue stopped: firmware uses them before the guest's
   * IOMMU driver starts, and vhost-user has no message for a reset of the machine. A device with bus mastering disabled does
   * no DMA, so this changes nothing for a machine that is only paused: when the queue starts again, before the guest runs, each
   * device is attached to its domain again.
   */
  letFirmwarePass(): void {
    if (!this.mayBeReset) return;
    const { life } = this.#parts;
    for (const group of this.#groups.values()) {
      const isReset = typeof group.place === "object" &&
        group.devices.every(({ endpoint, isBusMaster }) =>
          isBusMaster === false && !life.blocks(endpoint)
        );
      if (isReset) group.move("bypass");
    }
  }

  /** The session ends: blocks every device at once. */
  cut(): void {
    this.#isStarted = false;
    this.#isStopped = false;
    for (const group of this.#groups.values()) group.cut();
  }

  #groupOf(endpoint: number): HostGroup | undefined {
    const device = this.#byEndpoint.get(endpoint);
    return device === undefined ? undefined : this.#groups.get(device.group);
  }

  #uses(iommu: HostIommu): boolean {
    return [...this.#groups.values()].some((group) => group.iommu === iommu);
  }

  #iommus(): Iterable<HostIommu> {
    return new Set([...this.#groups.values()].map((group) => group.iommu));
  }

  #isElsewhere(
    group: HostGroup,
    endpoint: number,
    domain: D | undefined,
    bypass: boolean,
  ): boolean {
    return group.devices.some(({ endpoint: id }) => {
      const other = id === endpoint ? undefined : this.#parts.endpoints.seen(id)?.domain;
      return other !== undefined && other !== domain && !(other.bypass && bypass);
    });
  }

  /** Moves a group to where the state of its endpoints says; if bypass fails, it is blocked. */
  #follow(group: HostGroup): Errno {
    const target = this.#targetOf(group);
    const isLeft = typeof target === "string" && group.isVmms &&
      (!this.#isStarted || (target === "bypass" && group.place === "vmm"));
    if (isLeft) return OK;
    const error = group.move(target);
    if (error !== OK && target === "bypass") {
      group.move("blocked");
      this.onWarning(`${namesOf(group)} cannot bypass (error ${error}) and is blocked`);
    }
    this.#settle(group);
    return error;
  }

  /** Where the devices of a group belong. */
  #targetOf(group: HostGroup): HostTarget {
    const { endpoints, config, life } = this.#parts;
    let passes = config.bypass;
    for (const { endpoint: id } of group.devices) {
      const endpoint = endpoints.seen(id);
      const domain = endpoint?.domain;
      if (endpoint === undefined || domain === undefined) passes &&= !life.blocks(id);
      else if (endpoint.isBlocked) passes = false;
      else return targetIn(domain, group);
    }
    return passes ? "bypass" : "blocked";
  }

  /** Blocks attached endpoints in the device tables whose devices are not in their domain, and unblocks those that are. */
  #settle(group: HostGroup): void {
    const { endpoints, hardware, iotlbListeners } = this.#parts;
    for (const { endpoint: id } of group.devices) {
      const endpoint = endpoints.seen(id);
      const domain = endpoint?.domain;
      if (endpoint === undefined || domain === undefined) continue;
      const isThere = group.place === targetIn(domain, group);
      if (isThere !== endpoint.isBlocked) continue;
      if (isThere) {
        if (this.#unblock(endpoint, domain)) continue;
        // Without memory for its entry, its device must not access memory either.
        group.move("blocked");
        this.#settle(group);
        return;
      }
      endpoint.isBlocked = true;
      hardware.detach(endpoint);
      iotlbListeners.invalidateAll(id);
      this.onWarning(
        `Endpoint ${endpointText(id)} is blocked until it is attached again: ` +
          `its device and others of host group ${group.number} can only be attached together`,
      );
    }
  }

  /** Points the device tables of an attached endpoint to its domain again. Returns whether there is memory for it. */
  #unblock(endpoint: Endpoint<D>, domain: D): boolean {
    const { hardware, iotlbListeners } = this.#parts;
    if (domain.point(endpoint) !== OK) return false;
    endpoint.isBlocked = false;
    hardware.flush(endpoint);
    iotlbListeners.invalidateAll(endpoint.id);
    iotlbListeners.mapped(endpoint.id, 0, LAST_PAGE);
    return true;
  }
}

/** What the devices of a group are attached to in a domain. */
function targetIn(domain: HostDomain, { iommu }: HostGroup): HostTarget {
  return domain.bypass ? "bypass" : domain.hostTable(iommu) ?? "blocked";
}

/** The endpoints of a group, for the log. */
function namesOf({ devices }: HostGroup): string {
  return `The device of endpoint ${
    devices.map(({ endpoint }) => endpointText(endpoint)).join(", ")
  }`;
}
