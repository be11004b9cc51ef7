/**
 * A guest with three devices of a host, of which two are in one group.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  unmapRequest,
} from "../../../device/iommu/driver_requests.ts";
import type { IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { STATUS_NAMES } from "../../../device/iommu/wire.ts";
import { type Errno, OK } from "../../../pagetable/mod.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "../in_process_guest.ts";
import { type FakeDevice, FakeHost } from "./fake_host.ts";

/** The RAM of `InProcessGuest`: pages 0 to 255. */
export const RAM = 256;
export const A = 8;
export const B = 16;
export const C = 24;

/** A guest with devices of a host: A and B in one group, C in another. */
export class World implements Disposable {
  readonly host = new FakeHost();
  readonly guest: InProcessGuest;
  readonly device: IommuDevice;
  readonly #devices = new Map<number, FakeDevice>();
  readonly warnings: string[] = [];

  constructor(bypass = false, endpoints: readonly number[] = [A, B, C]) {
    this.guest = new InProcessGuest({ ...DEFAULT_OPTIONS, bypass, maxHostRanges: 4 });
    this.device = this.guest.device;
    this.device.hosts.onWarning = (line) => this.warnings.push(line);
    for (const id of endpoints) assertEquals(this.device.passthrough.add(this.of(id)), OK);
    this.calls();
  }

  /** One of the three devices, which the VMM makes when it is first asked for. */
  of(endpoint: number): FakeDevice {
    const device = this.#devices.get(endpoint) ??
      this.host.device(endpoint, endpoint === C ? 2 : 1);
    this.#devices.set(endpoint, device);
    return device;
  }

  /** What was called since the last time. */
  calls(): string {
    return this.host.calls.splice(0).join(", ");
  }

  attach(domain: number, endpoint: number, flags = 0): string {
    return this.#send(attachRequest(domain, endpoint, flags));
  }

  detach(domain: number, endpoint: number): string {
    return this.#send(detachRequest(domain, endpoint));
  }

  map(domain: number, page: number, frame: number, count = 1): string {
    return this.#send(mapRequest({
      domain,
      virtStart: BigInt(page) * 4096n,
      virtEnd: BigInt(page + count) * 4096n - 1n,
      physStart: BigInt(frame) * 4096n,
      flags: 3,
    }));
  }

  unmap(domain: number, page: number, count = 1): string {
    return this.#send(
      unmapRequest(domain, BigInt(page) * 4096n, BigInt(page + count) * 4096n - 1n),
    );
  }

  setBypass(on: boolean): void {
    this.device.writeConfig(new Uint8Array([on ? 1 : 0]), 36);
  }

  /** Lets the next call of a kind fail. */
  failNext(kind: "create" | "map" | "attach" | "bypass", error: Errno): void {
    this.host.next = (call) => {
      if (call !== kind) return OK;
      this.host.next = () => OK;
      return error;
    };
  }

  /** The reason of the last refused request. */
  get reason(): string {
    const events = [...this.device.events.since(0)];
    const refused = events.findLast((event) => event.kind === "refused");
    return refused?.kind === "refused" ? refused.reason : "";
  }

  #send(request: Uint8Array): string {
    return STATUS_NAMES[this.guest.request(request, 4).bytes[0]];
  }

  [Symbol.dispose](): void {
    this.guest.close();
    assertEquals([this.host.tables.size, this.host.ram.size], [0, 0], "tables and memory are left");
  }
}
