/**
 * `/dev/iommu` and VFIO devices as a program uses them (Linux, `include/uapi/linux/{iommufd,vfio}.h`), for programs in an L1
 * guest. Written apart from `device/vfio`, whose judge it is.
 *
 * @module
 */
import { ioctl, openDevice } from "./libc.ts";

/** The first page at which devices write interrupts, which nothing else can be mapped at. */
export const INTERRUPT_PAGE: number = Deno.build.arch === "x86_64" ? 0xfee00 : 0x8000;

/** A device that is alone in its IOMMU group, and two that share one (`GROUPS` of `l1_machine.ts`). */
export const SINGLE = "0000:00:04.0";
export const GROUPED: readonly string[] = Deno.build.arch === "x86_64"
  ? ["0000:01:01.0", "0000:01:02.0"]
  : ["0000:00:05.0", "0000:00:05.1"];

/** Calls on a device's file: `_IO(';', n)`. */
const BIND_IOMMUFD = 0x3b76;
const ATTACH_IOMMUFD_PT = 0x3b77;
const DETACH_IOMMUFD_PT = 0x3b78;
const GET_REGION_INFO = 0x3b6c;
/** Calls on `/dev/iommu`. */
const DESTROY = 0x3b80;
const IOAS_ALLOC = 0x3b81;
const IOAS_UNMAP = 0x3b86;
const IOAS_MAP_FILE = 0x3b8f;
/** Flags of a mapping: at the given address, written, read. */
const FIXED = 1;
const WRITEABLE = 2;
const READABLE = 4;

/** A little-endian structure of a call: its fields by offset. */
type Fields = readonly (readonly [offset: number, value: number | bigint])[];

/** A structure of so many bytes, of which the first word is its size. `bigint` fields have 64 bits, others 32. */
function structure(bytes: number, fields: Fields): DataView<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(bytes));
  view.setUint32(0, bytes, true);
  for (const [offset, value] of fields) {
    if (typeof value === "bigint") view.setBigUint64(offset, value, true);
    else view.setUint32(offset, value, true);
  }
  return view;
}

/** Makes a call; 0 or the errno. */
function call(file: number, request: number, argument: DataView<ArrayBuffer>): number {
  return ioctl(file, request, new Uint8Array(argument.buffer));
}

/** Makes a call that has to succeed. */
function demand(file: number, request: number, argument: DataView<ArrayBuffer>): void {
  const error = call(file, request, argument);
  if (error !== 0) throw new Error(`Cannot call 0x${request.toString(16)}: errno ${error}`);
}

/** Binds a PCI device to `vfio-pci`; the path of its character device. */
export async function bindToVfio(address: string): Promise<string> {
  const device = `/sys/bus/pci/devices/${address}`;
  await Deno.writeTextFile(`${device}/driver_override`, "vfio-pci");
  await Deno.writeTextFile("/sys/bus/pci/drivers_probe", address);
  const [cdev] = await Array.fromAsync(Deno.readDir(`${device}/vfio-dev`));
  return `/dev/vfio/devices/${cdev.name}`;
}

/** An open `/dev/iommu`. */
export class HostIommufd {
  readonly file: number = openDevice("/dev/iommu");

  /** A new I/O address space. */
  allocate(): number {
    const argument = structure(12, []);
    demand(this.file, IOAS_ALLOC, argument);
    return argument.getUint32(8, true);
  }

  /** Maps bytes of a memory file; 0 or the errno. */
  map(
    ioas: number,
    iova: bigint,
    file: number,
    offset: bigint,
    length: bigint,
    access: "r" | "w" | "rw" = "rw",
  ): number {
    const flags = FIXED | (access.includes("w") ? WRITEABLE : 0) |
      (access.includes("r") ? READABLE : 0);
    return call(
      this.file,
      IOAS_MAP_FILE,
      structure(40, [[4, flags], [8, ioas], [12, file], [16, offset], [24, length], [32, iova]]),
    );
  }

  /** Removes the mappings in a range; 0 or the errno. */
  unmap(ioas: number, iova: bigint, length: bigint): number {
    return call(this.file, IOAS_UNMAP, structure(24, [[4, ioas], [8, iova], [16, length]]));
  }

  /** Destroys an object; 0 or the errno. */
  destroy(id: number): number {
    return call(this.file, DESTROY, structure(8, [[4, id]]));
  }
}

/** A VFIO device, through the one open file that it may have. */
export class HostDevice {
  readonly file: number;

  constructor(path: string) {
    this.file = openDevice(path);
  }

  /** Binds it to an iommufd; its id there. */
  bind(iommufd: HostIommufd): number {
    const argument = structure(16, [[8, iommufd.file]]);
    demand(this.file, BIND_IOMMUFD, argument);
    return argument.getUint32(12, true);
  }

  /** Attaches it to an I/O address space or a hardware page table; 0 or the errno. */
  attach(id: number): number {
    return call(this.file, ATTACH_IOMMUFD_PT, structure(12, [[8, id]]));
  }

  /** Detaches it: its DMA is blocked. */
  detach(): number {
    return call(this.file, DETACH_IOMMUFD_PT, structure(8, []));
  }

  /** Where a region begins in the file: 0 to 5 are its BARs, 7 is its configuration space. */
  regionOffset(index: number): number {
    const argument = structure(32, [[8, index]]);
    demand(this.file, GET_REGION_INFO, argument);
    return Number(argument.getBigUint64(24, true));
  }
}
