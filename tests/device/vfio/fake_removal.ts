/**
 * How objects and areas of the kernel of `fake_iommufd.ts` go.
 *
 * @module
 */
import type { FakeHwpt, FakeIoas, FakeIommufd, FakeObject } from "./fake_objects.ts";

const ENOENT = 2;
const EBUSY = 16;
const EINVAL = 22;
const EOVERFLOW = 75;

/** A 64-bit field of a structure. */
export function bytesAt(view: DataView, at: number): number {
  return Number(view.getBigUint64(at, true));
}

/** Removes a page table that an attach call made, if no device is attached to it any more. */
export function dropAuto(iommufd: FakeIommufd, hwpt: FakeHwpt): void {
  if (!hwpt.isAuto || hwpt.devices.size > 0) return;
  hwpt.ioas.pageTables.delete(hwpt);
  iommufd.remove(hwpt);
}

/** What a destroy call does; the errno. */
export function destroy(iommufd: FakeIommufd, object: FakeObject | undefined): number {
  if (object === undefined) return ENOENT;
  if (object.kind === "device") return EBUSY;
  if (object.kind === "ioas") {
    if (object.isPinned) return EBUSY;
    object.areas.forEach(({ backing }) => backing.kept?.close());
  } else {
    if (object.devices.size > 0) return EBUSY;
    object.ioas.pageTables.delete(object);
  }
  iommufd.remove(object);
  return 0;
}

/** What an unmap call does; the errno. */
export function unmap(ioas: FakeIoas, view: DataView): number {
  const first = bytesAt(view, 8) / 4096;
  const length = bytesAt(view, 16) / 4096;
  const isAll = first === 0 && view.getBigUint64(16, true) === 2n ** 64n - 1n;
  if (length === 0) return EINVAL;
  const last = first + length - 1;
  if (last >= 2 ** 52) return EOVERFLOW;
  let pages = 0;
  for (const area of ioas.areas.filter((each) => each.first <= last && each.last >= first)) {
    if (area.first < first || area.last > last) return ENOENT;
    area.backing.kept?.close();
    ioas.areas = ioas.areas.filter((each) => each !== area);
    pages += area.last - area.first + 1;
  }
  if (pages === 0 && !isAll) return ENOENT;
  view.setBigUint64(16, BigInt(pages) * 4096n, true);
  return 0;
}
