/**
 * Reserved memory regions of endpoints and the PROBE properties that tell the guest of them.
 *
 * Source: virtio 1.4, section 5.13.6.7. A region is an inclusive range of whole pages.
 */
import { rangeText, writeAddress } from "../address.ts";
import {
  PROPERTY_HEADER_SIZE,
  PROPERTY_RESV_MEM,
  PROPERTY_RESV_MEM_SIZE,
  TAIL_SIZE,
} from "./wire.ts";

/** Region subtype: the guest must not use the range at all. */
export const RESV_MEM_RESERVED = 0;
/** Region subtype: the range is where message-signalled interrupts are written to. */
export const RESV_MEM_MSI = 1;

/** A range of I/O virtual addresses that no mapping may touch. */
export interface ReservedRegion {
  /** First page of the region. */
  readonly firstPage: number;
  /** Last page of the region, inclusive. */
  readonly lastPage: number;
  /** {@linkcode RESV_MEM_RESERVED} or {@linkcode RESV_MEM_MSI}. */
  readonly subtype: number;
  /** First endpoint that has the region; all endpoints where it is left out. */
  readonly firstEndpoint?: number;
  /** Last endpoint that has the region, inclusive. */
  readonly lastEndpoint?: number;
}

/** Size in bytes of one RESV_MEM property, header included. */
const PROPERTY_SIZE = PROPERTY_HEADER_SIZE + PROPERTY_RESV_MEM_SIZE;

/** The regions of every endpoint of one device. */
export class ReservedRegions {
  readonly #regions: readonly ReservedRegion[];
  /** The regions of endpoints that have their own, by their ids. */
  readonly #own = new Map<number, readonly ReservedRegion[]>();
  readonly #mostOwn: number;

  /**
   * The regions of a device.
   *
   * @param mostOwn How many regions of its own an endpoint can be given later.
   * @throws {RangeError} If two regions of one endpoint overlap (R3) or an endpoint has two MSI regions (R2).
   */
  constructor(regions: readonly ReservedRegion[], mostOwn = 0) {
    this.#regions = checked(regions);
    this.#mostOwn = mostOwn;
  }

  /** Bytes that the properties of any endpoint need at most: the `probe_size` of the configuration. */
  get probeSize(): number {
    // Sparing an endpoint with fewer regions is not worth a per-endpoint size: the field is one for all.
    return Math.max(this.#regions.length, this.#mostOwn, 1) * PROPERTY_SIZE;
  }

  /** The regions of one endpoint, in ascending order. */
  of(endpoint: number): readonly ReservedRegion[] {
    return this.#own.get(endpoint) ?? this.commonOf(endpoint);
  }

  /** Those of the device's regions that one endpoint has unless it is given its own, in ascending order. */
  commonOf(endpoint: number): readonly ReservedRegion[] {
    return this.#regions.filter((region) => hasEndpoint(region, endpoint));
  }

  /** Whether an endpoint was given regions of its own. */
  hasOwn(endpoint: number): boolean {
    return this.#own.has(endpoint);
  }

  /**
   * Gives an endpoint regions of its own, in place of the others.
   *
   * @throws {RangeError} As the constructor; and if `probeSize` has no room for so many.
   */
  setOwn(endpoint: number, regions: readonly ReservedRegion[]): void {
    const most = this.probeSize / PROPERTY_SIZE;
    if (regions.length > most) {
      throw new RangeError(
        `Cannot tell of ${regions.length} reserved ranges of one endpoint: there is room for ${most}`,
      );
    }
    this.#own.set(endpoint, checked(regions));
  }

  /** Takes the regions of its own from an endpoint. */
  clearOwn(endpoint: number): void {
    this.#own.delete(endpoint);
  }

  /**
   * Writes the properties of an endpoint at the start of `target`, which is zeroed behind them (P8), reserved
   * fields included (P4, R1).
   *
   * @param target At least {@linkcode probeSize} bytes, and the tail behind them untouched.
   */
  writeProperties(endpoint: number, target: Uint8Array): void {
    const size = this.probeSize;
    target.fill(0, 0, size);
    const view = new DataView(target.buffer, target.byteOffset, size + TAIL_SIZE);
    let at = 0;
    for (const region of this.of(endpoint)) {
      view.setUint16(at, PROPERTY_RESV_MEM, true);
      view.setUint16(at + 2, PROPERTY_RESV_MEM_SIZE, true); // P5: without the header
      view.setUint8(at + 4, region.subtype);
      writeAddress(view, at + 8, region.firstPage, 0);
      writeAddress(view, at + 16, region.lastPage, 0xfff);
      at += PROPERTY_SIZE; // P6: the next property stands at length + 4
    }
  }
}

/** The regions in ascending order, if they may be together. */
function checked(regions: readonly ReservedRegion[]): readonly ReservedRegion[] {
  for (let i = 0; i < regions.length; i++) {
    for (let j = 0; j < i; j++) checkPair(regions[i], regions[j]);
  }
  return regions.toSorted((a, b) => a.firstPage - b.firstPage);
}

/** Whether the region is one of the endpoint's. */
function hasEndpoint(region: ReservedRegion, endpoint: number): boolean {
  return endpoint >= (region.firstEndpoint ?? 0) && endpoint <= (region.lastEndpoint ?? 0xffffffff);
}

/** Checks the rules that hold between two regions of one endpoint. */
function checkPair(a: ReservedRegion, b: ReservedRegion): void {
  const shareEndpoint = (a.firstEndpoint ?? 0) <= (b.lastEndpoint ?? 0xffffffff) &&
    (b.firstEndpoint ?? 0) <= (a.lastEndpoint ?? 0xffffffff);
  if (!shareEndpoint) return;
  if (a.firstPage <= b.lastPage && b.firstPage <= a.lastPage) {
    throw new RangeError(
      `Cannot reserve ${rangeText(a.firstPage, a.lastPage)} and ${
        rangeText(b.firstPage, b.lastPage)
      } for one endpoint: they overlap`,
    );
  }
  if (a.subtype === RESV_MEM_MSI && b.subtype === RESV_MEM_MSI) {
    throw new RangeError(
      `Cannot give one endpoint two MSI regions: ${rangeText(b.firstPage, b.lastPage)} and ${
        rangeText(a.firstPage, a.lastPage)
      }`,
    );
  }
}
