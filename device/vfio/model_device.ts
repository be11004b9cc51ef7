/** A device of the host as the model sees it: what is attached where, what it reserves, what its IOMMU can translate. */
import type { Errno } from "../../pagetable/mod.ts";
import type {
  HostDevice,
  HostLimits,
  HostReservedRange,
  HostTable,
} from "../iommu/host_devices.ts";
import type { KernelIommu } from "./kernel_iommu.ts";
import type { PassedDevice } from "./passed_device.ts";
import type { HostRange } from "./reserved_ranges.ts";

/** A device of the host. */
export class ModelDevice implements HostDevice {
  readonly endpoint: number;
  readonly iommu: KernelIommu;
  readonly group: number;
  readonly reserved: readonly HostReservedRange[];
  readonly #passed: PassedDevice;

  /** The same device as the kernel sees it, and what sysfs says that it reserves. */
  constructor(passed: PassedDevice, reserved: readonly HostRange[]) {
    this.#passed = passed;
    this.endpoint = passed.endpoint;
    this.iommu = passed.iommu;
    this.group = passed.group;
    this.reserved = reserved.map(({ firstPage, lastPage, isMsi }) => ({
      firstPage,
      lastPage,
      kind: isMsi ? "msi" : "reserved",
    }));
  }

  limits(): HostLimits | undefined {
    const aperture = this.iommu.aperture();
    if (typeof aperture === "number") return undefined;
    const { firstPage, lastPage, leafOrder } = aperture;
    return { firstPage, lastPage, granulePages: 2 ** leafOrder };
  }

  get isBusMaster(): boolean {
    return this.#passed.isBusMaster;
  }

  attach(table: HostTable): Errno {
    return this.#passed.attach(table);
  }

  bypass(): Errno {
    return this.#passed.bypass();
  }

  block(): void {
    this.#passed.block();
  }

  detach(): void {
    this.#passed.detach();
  }
}
