/**
 * What serves a device to a VMM that is replayed (`vmm.ts`), and what is behind it.
 *
 * @module
 */
import { until } from "../../until.ts";
import type { Vmm } from "../vhost_user/vmm.ts";
import { EndpointWorld } from "./endpoint_world.ts";
import type { ReplayedDevice, ReplayedDriver } from "./replayed_device.ts";

/** A device on a socket. */
export interface ReplayedService extends AsyncDisposable {
  /** What the device says of itself, and what the guest does with it. */
  readonly driver: ReplayedDriver;
  /** Warnings and faults so far, in which no good life ends. */
  readonly complaints: readonly string[];
  /** A VMM connects. The session before has ended, or is about to, or there was none. */
  open(vmm: Vmm): Promise<void>;
  /** Maps guest-physical bytes `[first, last]` at their I/O virtual addresses. */
  map(first: number, last: number): void;
}

/** A device of this process, served. */
export class ReplayedEndpoint implements ReplayedService {
  readonly driver: ReplayedDevice;
  readonly #world: EndpointWorld;

  constructor(device: ReplayedDevice) {
    this.driver = device;
    this.#world = new EndpointWorld(device.device);
    this.#world.attach();
  }

  get complaints(): readonly string[] {
    const { warnings, service: { faults } } = this.#world;
    return faults === 0 ? warnings : [...warnings, `${faults} faults`];
  }

  async open(vmm: Vmm): Promise<void> {
    await until(() => !this.#world.service.connected, "the session before has ended");
    vmm.open(this.#world.path);
  }

  map(first: number, last: number): void {
    this.#world.map(first, last);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#world[Symbol.asyncDispose]();
    this.driver[Symbol.dispose]();
  }
}
