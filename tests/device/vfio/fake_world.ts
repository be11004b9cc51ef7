/**
 * The kernel of `fake_iommufd.ts` as a {@linkcode KernelWorld}: its devices move bytes by what is mapped in it.
 *
 * @module
 */
import { libc } from "../../../device/host/libc.ts";
import type { FakeArea, FakeDevice, FakeObject } from "./fake_objects.ts";
import { FakeGroup } from "./fake_objects.ts";
import { FakeKernel, VTD } from "./fake_iommufd.ts";
import type { KernelWorld } from "./kernel_machine.ts";

/** A {@linkcode KernelWorld} that can be looked into. */
export interface FakeWorld extends KernelWorld, Disposable {
  readonly kernel: FakeKernel;
  readonly fakes: readonly FakeDevice[];
  /** The objects of its `/dev/iommu`, by id. */
  readonly objects: ReadonlyMap<number, FakeObject>;
}

/** A kernel with devices of a VMM's in one group each, or all in one. */
export function fakeWorld(devices = 2, isOneGroup = false): FakeWorld {
  const kernel = new FakeKernel();
  const iommufd = kernel.openIommufd();
  const group = new FakeGroup();
  const fakes = Array.from(
    { length: devices },
    () => kernel.openDevice(isOneGroup ? { group } : {}),
  );
  const [first, ...rest] = fakes;
  const ioas = kernel.bind(first, iommufd);
  for (const device of rest) kernel.bind(device, iommufd, ioas);
  const read = fakes.map(() => new Uint8Array(8));
  return {
    kernel,
    fakes,
    objects: iommufd.objects,
    calls: kernel,
    iommufd: iommufd.file,
    devices: fakes.map(({ file }) => file),
    groups: fakes.map((_, at) => isOneGroup ? 7 : at),
    lastPage: VTD.last,
    msiPage: VTD.msiFirst,
    copy(device, fromPage, toPage) {
      const from = fakes[device].areaAt(fromPage);
      if (from?.isReadable) move(from, fromPage, read[device], false);
      const to = fakes[device].areaAt(toPage);
      if (to?.isWritable) move(to, toPage, read[device], true);
    },
    [Symbol.dispose]: () => kernel[Symbol.dispose](),
  };
}

/** Moves bytes from or to the beginning of a page. */
function move(
  { first, backing: { kept, at } }: FakeArea,
  page: number,
  bytes: Uint8Array<ArrayBuffer>,
  isWrite: boolean,
): void {
  const place = BigInt(at + (page - first) * 4096);
  if (kept === undefined) {
    const pointer = Deno.UnsafePointer.create(place)!;
    const there = new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, bytes.length));
    if (isWrite) there.set(bytes);
    else bytes.set(there);
    return;
  }
  const vector = new BigUint64Array([
    Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes)),
    BigInt(bytes.length),
  ]);
  const call = isWrite ? libc().pwritev2 : libc().preadv2;
  call(kept.number, new Uint8Array(vector.buffer), 1, place, 0);
}
