/**
 * A kernel's iommufd and VFIO devices, for tests: what the calls are documented to do, and what they were seen to do on
 * Linux 7.3 beyond that. `kernel_cases.ts` runs the same tests against a real kernel.
 *
 * - Ids are used again at once, the lowest first, for objects of any kind.
 * - UNMAP removes whole areas. With part of one in the range it is ENOENT, and those before it are gone already.
 * - Pages are pinned, and charged, once for each area, and only where a page table leads to the address space.
 * - Attaching a device that is attached elsewhere moves its whole group; one that is detached reaches what its group does.
 * - Attaching to an address space makes a page table, which is gone with the last device.
 *
 * Descriptors are real ones, of memory files, so that what is closed is EBADF.
 *
 * @module
 */
import { createMemoryFile, type Descriptor } from "../../../device/host/mod.ts";
import type { DeviceCalls } from "../../../device/vfio/mod.ts";
import * as calls from "../../../device/vfio/iommufd.ts";
import * as vfio from "../../../device/vfio/vfio_device.ts";
import {
  type Backing,
  backingOf,
  type FakeArea,
  FakeDevice,
  FakeGroup,
  type FakeHardware,
  FakeHwpt,
  FakeIoas,
  FakeIommufd,
} from "./fake_objects.ts";
import { bytesAt, destroy, dropAuto, unmap } from "./fake_removal.ts";

const ENOENT = 2;
const EBADF = 9;
const ENOMEM = 12;
const EFAULT = 14;
const EBUSY = 16;
const EEXIST = 17;
const EINVAL = 22;
const ENOTTY = 25;
const EOVERFLOW = 75;
const EMSGSIZE = 90;
const EOPNOTSUPP = 95;
const EADDRINUSE = 98;

/** The second stage of VT-d: 48 bits, and the window of interrupts. */
export const VTD: FakeHardware = {
  first: 0,
  last: 2 ** 36 - 1,
  msiFirst: 0xfee00,
  msiLast: 0xfeeff,
};

/** Nothing of a process is below (`vm.mmap_min_addr`). */
const LOWEST_ADDRESS = 0x10000;

/** The kernel. */
export class FakeKernel implements DeviceCalls, Disposable {
  /** Whether it maps files (Linux 6.13). */
  mapsFiles = true;
  /** Most pages that may be pinned. */
  mostPinned = Infinity;
  /** Alignment of what is mapped, in bytes, once a page table leads there. */
  alignment = 4096;
  /** Asked before each call: an errno makes the call fail. */
  fails: (request: number) => number = () => 0;
  /** Numbers of the calls made. */
  readonly made: number[] = [];
  readonly #iommufds = new Map<number, FakeIommufd>();
  readonly #devices = new Map<number, FakeDevice>();

  /** Opens `/dev/iommu`. */
  openIommufd(file: Descriptor = createMemoryFile("fake-iommufd", 4096)): FakeIommufd {
    const iommufd = new FakeIommufd(file);
    this.#iommufds.set(file.number, iommufd);
    return iommufd;
  }

  /** Opens a device. */
  openDevice(
    options: { group?: FakeGroup; hardware?: FakeHardware; file?: Descriptor } = {},
  ): FakeDevice {
    const file = options.file ?? createMemoryFile("fake-device", 4096);
    const { group = new FakeGroup(), hardware = VTD } = options;
    const device = new FakeDevice(file, group, hardware);
    this.#devices.set(file.number, device);
    return device;
  }

  /** Does what a VMM does first: binds a device and attaches it to an address space of its own, which it returns. */
  bind(device: FakeDevice, iommufd: FakeIommufd, ioas = new FakeIoas()): FakeIoas {
    device.owner = iommufd;
    iommufd.add(device);
    if (![...iommufd.objects.values()].includes(ioas)) iommufd.add(ioas);
    if (this.#attachTo(device, iommufd, ioas) !== 0) throw new Error("Cannot attach the device");
    return ioas;
  }

  /** Pages pinned. */
  get pinned(): number {
    let pages = 0;
    for (const { objects } of this.#iommufds.values()) {
      for (const object of objects.values()) {
        if (object.kind === "ioas" && object.isPinned) pages += object.pages;
      }
    }
    return pages;
  }

  /** The kinds of the objects that there are, sorted. */
  get objects(): readonly string[] {
    return [...this.#iommufds.values()].flatMap(({ objects }) =>
      [...objects.values()].map(({ kind }) => kind)
    ).sort();
  }

  /** Closes everything. */
  [Symbol.dispose](): void {
    for (const { file, objects } of this.#iommufds.values()) {
      for (const object of objects.values()) {
        if (object.kind === "ioas") object.areas.forEach(({ backing }) => backing.kept?.close());
      }
      file.close();
    }
    for (const { file } of this.#devices.values()) file.close();
  }

  ioctl(number: number, request: number, argument: Uint8Array<ArrayBuffer>): number {
    const view = new DataView(argument.buffer, argument.byteOffset, argument.byteLength);
    if (view.getUint32(0, true) !== argument.byteLength) throw new Error("The size is wrong");
    this.made.push(request);
    const failure = this.fails(request);
    if (failure !== 0) return failure;
    const iommufd = this.#iommufds.get(number);
    if (iommufd?.file.isOpen) return this.#iommufdCall(iommufd, request, view);
    const device = this.#devices.get(number);
    return device?.file.isOpen ? this.#deviceCall(device, request, view) : EBADF;
  }

  read(number: number, offset: number, target: Uint8Array<ArrayBuffer>): number {
    const device = this.#devices.get(number);
    // The command register is all that is read.
    if (device === undefined || offset !== 7 * 2 ** 40 + 4 || target.length !== 2) return -1;
    new DataView(target.buffer).setUint16(0, device.command, true);
    return target.length;
  }

  #iommufdCall(iommufd: FakeIommufd, request: number, view: DataView): number {
    const { objects } = iommufd;
    const u32 = (at: number) => view.getUint32(at, true);
    const object = (at: number) => objects.get(u32(at));
    switch (request) {
      case calls.IOMMU_IOAS_ALLOC:
        if (u32(4) !== 0) return EOPNOTSUPP;
        view.setUint32(8, iommufd.add(new FakeIoas()), true);
        return 0;
      case calls.IOMMU_DESTROY:
        return destroy(iommufd, object(4));
      case calls.IOMMU_GET_HW_INFO:
        view.setUint32(24, 1, true);
        return object(8)?.kind === "device" ? 0 : ENOENT;
    }
    if (request === calls.IOMMU_HWPT_ALLOC) {
      const device = object(8);
      const ioas = object(12);
      if (device?.kind !== "device" || ioas?.kind !== "ioas") return ENOENT;
      const hwpt = this.#createHwpt(ioas, device, false);
      if (typeof hwpt === "number") return hwpt;
      view.setUint32(16, iommufd.add(hwpt), true);
      return 0;
    }
    if (request === calls.IOMMU_IOAS_MAP_FILE && !this.mapsFiles) return ENOTTY;
    const ioas = objects.get(u32(request === calls.IOMMU_IOAS_MAP_FILE ? 8 : mapsAt(request)));
    if (ioas?.kind !== "ioas") return ENOENT;
    switch (request) {
      case calls.IOMMU_IOAS_IOVA_RANGES:
        return this.#ranges(ioas, view);
      case calls.IOMMU_IOAS_UNMAP:
        return unmap(ioas, view);
      case calls.IOMMU_IOAS_MAP: {
        const at = bytesAt(view, 16);
        return this.#map(ioas, view, { file: "memory", at, kept: undefined, size: Infinity });
      }
      case calls.IOMMU_IOAS_MAP_FILE: {
        const backing = backingOf(view.getInt32(12, true), bytesAt(view, 16));
        if (backing === undefined) return EBADF;
        const errno = this.#map(ioas, view, backing);
        if (errno !== 0) backing.kept?.close();
        return errno;
      }
    }
    return ENOTTY;
  }

  #deviceCall(device: FakeDevice, request: number, view: DataView): number {
    if (device.owner === null) return EINVAL;
    const iommufd = device.owner as FakeIommufd;
    switch (request) {
      case vfio.VFIO_REGION_INFO:
        view.setBigUint64(24, 7n << 40n, true);
        return view.getUint32(8, true) <= 8 ? 0 : EINVAL;
      case vfio.VFIO_DETACH:
        this.#leave(device, iommufd);
        return 0;
      case vfio.VFIO_ATTACH: {
        const object = iommufd.objects.get(view.getUint32(8, true));
        if (object === undefined) return ENOENT;
        if (object.kind === "device") return EINVAL;
        const errno = this.#attachTo(device, iommufd, object);
        if (errno === 0) view.setUint32(8, iommufd.idOf(device.group.hwpt!), true);
        return errno;
      }
    }
    return ENOTTY;
  }

  #map(ioas: FakeIoas, view: DataView, backing: Backing): number {
    const flags = view.getUint32(4, true);
    const length = bytesAt(view, 24);
    const iova = bytesAt(view, 32);
    const unit = ioas.isPinned ? this.alignment : 1;
    if ((flags & 1) === 0) throw new Error("The address is not given");
    if ((flags & 6) === 0 || length === 0) return EINVAL;
    if (length % unit !== 0 || iova % unit !== 0 || backing.at % unit !== 0) return EINVAL;
    const first = iova / 4096;
    const last = first + length / 4096 - 1;
    if (last >= 2 ** 52) return EOVERFLOW;
    const overlaps = (each: { first: number; last: number }) =>
      each.first <= last && each.last >= first;
    if (ioas.reserved.some(overlaps)) return EINVAL;
    if (ioas.areas.some(overlaps)) return EEXIST;
    const area = {
      first,
      last,
      backing,
      isReadable: (flags & 4) !== 0,
      isWritable: (flags & 2) !== 0,
    };
    const errno = ioas.isPinned ? this.#pin([area]) : 0;
    if (errno !== 0) return errno;
    ioas.areas = [...ioas.areas, area].sort((a, b) => a.first - b.first);
    return 0;
  }

  /** Whether areas could be pinned: their files, and the limit, are looked at then. */
  #pin(areas: readonly FakeArea[]): number {
    let pages = 0;
    for (const { first, last, backing } of areas) {
      pages += last - first + 1;
      if (backing.kept === undefined && backing.at < LOWEST_ADDRESS) return EFAULT;
      if (backing.at + (last - first + 1) * 4096 > backing.size) return EINVAL;
    }
    return this.pinned + pages > this.mostPinned ? ENOMEM : 0;
  }

  #ranges(ioas: FakeIoas, view: DataView): number {
    const ranges: [number, number][] = [];
    let next = 0;
    for (const { first, last } of ioas.reserved) {
      if (first > next) ranges.push([next, first - 1]);
      next = Math.max(next, last + 1);
    }
    if (next < 2 ** 52) ranges.push([next, 2 ** 52 - 1]);
    const room = view.getUint32(8, true);
    view.setUint32(8, ranges.length, true);
    if (ranges.length > room) return EMSGSIZE;
    const pointer = Deno.UnsafePointer.create(view.getBigUint64(16, true));
    const out = new DataView(Deno.UnsafePointerView.getArrayBuffer(pointer!, room * 16));
    ranges.forEach(([first, last], at) => {
      out.setBigUint64(at * 16, BigInt(first) * 4096n, true);
      out.setBigUint64(at * 16 + 8, BigInt(last) * 4096n + 4095n, true);
    });
    view.setBigUint64(24, BigInt(ioas.isPinned ? this.alignment : 1), true);
    return 0;
  }

  /** Makes a page table, which pins what is mapped. */
  #createHwpt(ioas: FakeIoas, device: FakeDevice, isAuto: boolean): FakeHwpt | number {
    if (ioas.conflicts(device.hardware, isAuto)) return EADDRINUSE;
    const errno = ioas.isPinned ? 0 : this.#pin(ioas.areas);
    if (errno !== 0) return errno;
    const hwpt = new FakeHwpt(ioas, device, isAuto);
    ioas.pageTables.add(hwpt);
    return hwpt;
  }

  #attachTo(device: FakeDevice, iommufd: FakeIommufd, to: FakeIoas | FakeHwpt): number {
    const { group } = device;
    if (group.busy > 0) {
      group.busy--;
      return EBUSY;
    }
    const at = group.hwpt;
    const isThere = at === to || at?.ioas === to;
    if (at !== null && !isThere && !device.isAttached) return EINVAL;
    if (isThere) {
      at!.devices.add(device);
      return 0;
    }
    const ioas = to.kind === "ioas" ? to : to.ioas;
    if (ioas.conflicts(device.hardware, true)) return EADDRINUSE;
    const shared = [...ioas.pageTables].find(({ isAuto }) => isAuto);
    const hwpt = to.kind === "hwpt" ? to : shared ?? this.#createHwpt(ioas, device, true);
    if (typeof hwpt === "number") return hwpt;
    if (hwpt !== to && hwpt !== shared) iommufd.add(hwpt);
    const moved = at === null ? [device] : [...at.devices].filter((each) => each.group === group);
    for (const each of moved) {
      at?.devices.delete(each);
      hwpt.devices.add(each);
    }
    group.hwpt = hwpt;
    if (at !== null) dropAuto(iommufd, at);
    return 0;
  }

  #leave(device: FakeDevice, iommufd: FakeIommufd): void {
    const { group } = device;
    const hwpt = group.hwpt;
    if (hwpt === null || !hwpt.devices.delete(device)) return;
    if (![...hwpt.devices].some((each) => each.group === group)) group.hwpt = null;
    dropAuto(iommufd, hwpt);
  }
}

/** Where the id of the address space is in the structure of a call. */
function mapsAt(request: number): number {
  return request === calls.IOMMU_IOAS_MAP ? 8 : 4;
}
