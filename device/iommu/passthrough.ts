/**
 * How devices of the host come and go, at the start and while a guest runs: what of the model changes with them.
 *
 * A device that comes while its VMM runs has to be attached by the VMM before, for it is taken over here at once. If its
 * endpoint is attached already, the domain's mappings are put into the host's I/O address space first, in one go.
 */
import { EBUSY } from "../../iommufd/mod.ts";
import { ENOENT, type Errno, OK } from "../../pagetable/mod.ts";
import type { Domain } from "./domain.ts";
import type { EndpointTable } from "./endpoint_table.ts";
import type { HostDevice } from "./host_devices.ts";
import type { HostRegistry } from "./host_registry.ts";
import { type ReservedRegions, RESV_MEM_MSI, RESV_MEM_RESERVED } from "./reserved_region.ts";

/** What changes with a device. */
export interface PassthroughParts {
  /** The devices. */
  readonly hosts: HostRegistry<Domain>;
  /** What endpoints reserve. */
  readonly reserved: ReservedRegions;
  /** Where endpoints are attached. */
  readonly endpoints: EndpointTable<Domain>;
}

/** What decides when a device may come or go. */
export interface PassthroughState {
  /** Whether something is under way that must not be interrupted. */
  readonly messagesWait: boolean;
  /** Whether tables hold host frames, which the host's I/O address spaces do not take. */
  readonly holdsHostFrames: boolean;
}

/** The devices of one virtio-iommu as they come and go. */
export class Passthrough {
  readonly #parts: PassthroughParts;
  readonly #state: PassthroughState;

  /** None has come yet. */
  constructor(parts: PassthroughParts, state: PassthroughState) {
    this.#parts = parts;
    this.#state = state;
  }

  /**
   * Adds a device.
   *
   * @returns OK; EBUSY while messages wait, to be tried again; EOPNOTSUPP if another one of its host group is attached to
   * another domain than its endpoint, or the host refuses; ENOMEM, EADDRINUSE for the domain's mappings. After an error it is
   * not there, and blocked, but for EBUSY.
   * @throws {RangeError} If its endpoint does not exist or has a device, if it has more reserved ranges than there is room
   * for or ranges that overlap, or where tables hold host frames.
   */
  add(device: HostDevice): Errno {
    const { hosts, reserved, endpoints } = this.#parts;
    const { endpoint: id, iommu } = device;
    if (this.#state.holdsHostFrames) {
      throw new RangeError("Cannot pass devices through where tables hold host frames");
    }
    hosts.check(device);
    if (this.#state.messagesWait) return EBUSY;
    if (device.reserved !== undefined) {
      reserved.setOwn(
        id,
        device.reserved.map(({ firstPage, lastPage, kind }) => ({
          firstPage,
          lastPage,
          subtype: kind === "msi" ? RESV_MEM_MSI : RESV_MEM_RESERVED,
        })),
      );
    }
    hosts.enter(iommu);
    const domain = endpoints.seen(id)?.domain;
    let error = domain === undefined ? OK : domain.enterHost(iommu);
    if (error === OK) {
      error = hosts.add(device);
      if (error !== OK) domain?.exitHost(iommu);
    }
    if (error !== OK) {
      // What the VMM attached it to is not what its endpoint is attached to.
      hosts.release(device);
      reserved.clearOwn(id);
      hosts.leave(iommu);
    }
    return error;
  }

  /**
   * Removes the device of an endpoint. It is blocked at once; the endpoint stays as it is for the guest.
   *
   * @returns OK: nothing is called of it any more; ENOENT if there is none; EBUSY while messages wait: it is blocked, and this is
   * to be called again.
   */
  remove(endpoint: number): Errno {
    const { hosts, reserved, endpoints } = this.#parts;
    const device = hosts.of(endpoint);
    if (device === undefined) return ENOENT;
    const domain = endpoints.seen(endpoint)?.domain;
    if (this.#state.messagesWait || domain?.space.isFilling === true) {
      hosts.release(device);
      return EBUSY;
    }
    hosts.remove(device);
    domain?.exitHost(device.iommu);
    hosts.leave(device.iommu);
    reserved.clearOwn(endpoint);
    return OK;
  }
}
