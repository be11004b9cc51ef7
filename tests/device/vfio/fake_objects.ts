/**
 * The objects of a kernel's iommufd, for tests: I/O address spaces with their areas, hardware page tables, devices and
 * their groups. `fake_iommufd.ts` has the calls.
 *
 * @module
 */
import { Descriptor } from "../../../device/host/mod.ts";
import { descriptorStatus } from "../../../device/host/file_status.ts";

/** What an area leads to, from its first page on. */
export interface Backing {
  /** The file's identity, or "memory". */
  readonly file: string;
  /** Bytes into the file, or an address in this process. */
  readonly at: number;
  /** The kernel's own reference to the file. */
  readonly kept: Descriptor | undefined;
  /** Bytes of the file. */
  readonly size: number;
}

/** What one map call made. Pages, inclusive. */
export interface FakeArea {
  readonly first: number;
  readonly last: number;
  readonly backing: Backing;
  readonly isReadable: boolean;
  readonly isWritable: boolean;
}

/** The IOMMU of a device: pages, inclusive. */
export interface FakeHardware {
  readonly first: number;
  readonly last: number;
  readonly msiFirst: number;
  readonly msiLast: number;
}

/** An I/O address space. */
export class FakeIoas {
  readonly kind = "ioas";
  /** In ascending order. */
  areas: FakeArea[] = [];
  readonly pageTables = new Set<FakeHwpt>();

  /** Whether pages are pinned: a page table leads to them. */
  get isPinned(): boolean {
    return this.pageTables.size > 0;
  }

  /** Pages mapped. */
  get pages(): number {
    return this.areas.reduce((sum, { first, last }) => sum + last - first + 1, 0);
  }

  /** What cannot be mapped, in ascending order. */
  get reserved(): { first: number; last: number }[] {
    const ranges: { first: number; last: number }[] = [];
    for (const { device, devices } of this.pageTables) {
      const { first, last } = device.hardware;
      if (first > 0) ranges.push({ first: 0, last: first - 1 });
      ranges.push({ first: last + 1, last: 2 ** 52 - 1 });
      for (const { hardware } of devices) {
        ranges.push({ first: hardware.msiFirst, last: hardware.msiLast });
      }
    }
    return ranges.sort((a, b) => a.first - b.first);
  }

  /** Whether an area, or a range, touches what would be reserved for a device, too. */
  conflicts({ first, last, msiFirst, msiLast }: FakeHardware, withMsi: boolean): boolean {
    return this.areas.some((area) =>
      area.first < first || area.last > last ||
      (withMsi && area.first <= msiLast && area.last >= msiFirst)
    );
  }
}

/** A hardware page table. */
export class FakeHwpt {
  readonly kind = "hwpt";
  /** The devices attached to it. */
  readonly devices = new Set<FakeDevice>();

  constructor(readonly ioas: FakeIoas, readonly device: FakeDevice, readonly isAuto: boolean) {}
}

/** The devices that the IOMMU does not tell apart. */
export class FakeGroup {
  /** Where those that are attached are. */
  hwpt: FakeHwpt | null = null;
  /** How many attach calls are answered with EBUSY, as during a reset. */
  busy = 0;
}

/** A device, bound to an iommufd or not. */
export class FakeDevice {
  readonly kind = "device";
  /** The open file of the device. */
  readonly file: Descriptor;
  readonly group: FakeGroup;
  readonly hardware: FakeHardware;
  /** The iommufd that it is bound to. */
  owner: object | null = null;
  /** The command register in its configuration space. */
  command = 0x0406;

  constructor(file: Descriptor, group: FakeGroup, hardware: FakeHardware) {
    this.file = file;
    this.group = group;
    this.hardware = hardware;
  }

  /** Whether it is attached by itself. */
  get isAttached(): boolean {
    return this.group.hwpt?.devices.has(this) ?? false;
  }

  /** The area that the device reaches at a page: as its group does. */
  areaAt(page: number): FakeArea | undefined {
    return this.group.hwpt?.ioas.areas.find(({ first, last }) => page >= first && page <= last);
  }
}

/** An object of an iommufd. */
export type FakeObject = FakeIoas | FakeHwpt | FakeDevice;

/** One open `/dev/iommu`. */
export class FakeIommufd {
  /** The objects by id. */
  readonly objects = new Map<number, FakeObject>();

  constructor(readonly file: Descriptor) {}

  /** Adds an object under the lowest free id. */
  add(object: FakeObject): number {
    let id = 1;
    while (this.objects.has(id)) id++;
    this.objects.set(id, object);
    return id;
  }

  /** The id of an object. */
  idOf(object: FakeObject): number {
    return [...this.objects].find(([, each]) => each === object)![0];
  }

  /** Removes an object. */
  remove(object: FakeObject): void {
    this.objects.delete(this.idOf(object));
  }
}

/** A reference of the kernel's own to an open file, and its size; undefined if the descriptor is not open. */
export function backingOf(number: number, at: number): Backing | undefined {
  const status = descriptorStatus(number);
  if (typeof status === "number") return undefined;
  const open = new Descriptor(number);
  const kept = open.duplicate();
  open.take();
  return { file: status.identity, at, kept, size: status.size };
}
