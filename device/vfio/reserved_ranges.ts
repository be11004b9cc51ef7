/**
 * The ranges of I/O virtual addresses at which a device of the host cannot be mapped, as sysfs lists them
 * (`reserved_regions` of an IOMMU group): one a line, first and last byte, and the type.
 */
import { parseAddress } from "../address.ts";

/** A range of whole pages. */
export interface HostRange {
  /** First page. */
  readonly firstPage: number;
  /** Last page, inclusive. */
  readonly lastPage: number;
  /** Whether interrupts are written there, and nothing else keeps it from being mapped. */
  readonly isMsi: boolean;
}

/**
 * Reads the list. Ranges grow to whole pages, those that overlap become one, and of several for interrupts the first counts
 * as such: a guest can be told of one (virtio 1.4, 5.13.6.7, R2 and R3).
 *
 * Ranges of type `direct-relaxable` are left out: the kernel lets them be mapped, too. Firmware uses them before the
 * operating system does.
 */
export function readReservedRanges(text: string): readonly HostRange[] {
  const ranges: HostRange[] = [];
  for (const line of text.split("\n")) {
    const [from, to, type] = line.split(/\s+/);
    const first = parseAddress(from);
    const last = parseAddress(to ?? "");
    if (first === undefined || last === undefined || type === "direct-relaxable") continue;
    ranges.push({ firstPage: first.page, lastPage: last.page, isMsi: type === "msi" });
  }
  return oneMsi(merged(ranges.toSorted((a, b) => a.firstPage - b.firstPage)));
}

/** Makes one of ranges that overlap, in order. */
function merged(ranges: readonly HostRange[]): readonly HostRange[] {
  const apart: HostRange[] = [];
  for (const range of ranges) {
    const before = apart.at(-1);
    if (before === undefined || range.firstPage > before.lastPage) {
      apart.push(range);
      continue;
    }
    apart[apart.length - 1] = {
      firstPage: before.firstPage,
      lastPage: Math.max(before.lastPage, range.lastPage),
      isMsi: before.isMsi && range.isMsi,
    };
  }
  return apart;
}

/** Leaves one range for interrupts. */
function oneMsi(ranges: readonly HostRange[]): readonly HostRange[] {
  const first = ranges.findIndex(({ isMsi }) => isMsi);
  return ranges.map((range, at) => ({ ...range, isMsi: at === first }));
}
