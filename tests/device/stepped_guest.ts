/**
 * A guest whose requests are done piece by piece, with whatever a test likes between two pieces.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { mapRequest, unmapRequest } from "../../device/iommu/driver_requests.ts";
import { IommuDevice } from "../../device/iommu/iommu_device.ts";
import { Turn } from "../../device/iommu/turn.ts";
import { UNDER_WAY } from "../../device/iommu/requests.ts";
import { READ } from "../../pagetable/mod.ts";
import { Chain, GuestMemory } from "../../vring/mod.ts";
import { DEFAULT_OPTIONS } from "./in_process_guest.ts";

const WRITABLE = 0x800;
const OK = 0;
/** First page of what {@linkcode Stepped.fill} maps. */
export const FIRST = 0x1000;

/** A device whose requests are chains in a few bytes of memory, and whose pieces are done one by one. */
export class Stepped implements Disposable {
  /** The device. */
  readonly device: IommuDevice;
  /** A turn without an end. */
  readonly turn = new Turn();
  readonly #memory = new GuestMemory();
  readonly #bytes = new Uint8Array(0x1000);
  readonly #chain = new Chain();

  /** A device without endpoints attached, whose driver has agreed to all features. */
  constructor(options = DEFAULT_OPTIONS) {
    this.device = new IommuDevice(options);
    const { buffer } = this.#bytes;
    this.#memory.add({ guestAddress: 0, size: 0x1000, buffer, offset: 0 });
    this.device.featuresAgreed(this.device.featuresLow, 0);
  }

  /** Mappings there are, those that are on their way out included. */
  get mappings(): number {
    return this.device.iommu.mappingCount;
  }

  /** Begins a request with `room` bytes for its answer; the used length, or `UNDER_WAY`. */
  serve(bytes: Uint8Array, room: number): number {
    this.#bytes.set(bytes);
    this.#chain.begin(this.#memory, 0, 8);
    this.#chain.push(0, bytes.length, false);
    this.#chain.push(WRITABLE, room, true);
    return this.device.requests.serve(this.#chain);
  }

  /** The status at the end of an answer of `length` bytes. */
  statusAt(length: number): number {
    return this.#bytes[WRITABLE + length - 4];
  }

  /** Begins a request; its status if it is over. */
  begin(bytes: Uint8Array): number | undefined {
    this.#bytes.fill(0xff, WRITABLE, WRITABLE + 4);
    return this.#status(this.serve(bytes, 4));
  }

  /** Does a piece of it; its status if it is over. */
  proceed(): number | undefined {
    return this.#status(this.device.requests.proceed(this.#chain));
  }

  /** Does a request to its end. */
  request(bytes: Uint8Array): number {
    let status = this.begin(bytes);
    while (status === undefined) status = this.proceed();
    return status;
  }

  /** Maps so many single pages of a domain, every `stride` pages one. */
  fill(domain: number, count: number, stride = 1): void {
    for (let i = 0; i < count; i++) {
      const page = FIRST + i * stride;
      assertEquals(this.request(mapPages(domain, page, page)), OK);
    }
  }

  /** Whether an endpoint reaches a page. */
  reaches(endpoint: number, page: number): boolean {
    return this.device.walk(endpoint, page, READ).ok;
  }

  /** Ends the device; throws if it leaked anything. */
  [Symbol.dispose](): void {
    this.device.close();
  }

  #status(used: number): number | undefined {
    if (used === UNDER_WAY) {
      assertEquals(this.#bytes[WRITABLE], 0xff, "nothing is answered before the end");
      return undefined;
    }
    assertEquals(used, 4);
    return this.#bytes[WRITABLE];
  }
}

/** A MAP of pages `[first, last]` for reading and writing, to frames from `frame` on. */
export function mapPages(domain: number, first: number, last: number, frame = 5): Uint8Array {
  const virtStart = BigInt(first) * 4096n;
  const virtEnd = BigInt(last) * 4096n + 4095n;
  return mapRequest({ domain, virtStart, virtEnd, physStart: BigInt(frame) * 4096n, flags: 3 });
}

/** An UNMAP of pages `[first, last]`. */
export function unmapPages(domain: number, first: number, last: number): Uint8Array {
  return unmapRequest(domain, BigInt(first) * 4096n, BigInt(last) * 4096n + 4095n);
}
