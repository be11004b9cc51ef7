/**
 * Guest RAM in memory files, and a device whose tables hold host-physical frames.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { ApiContext, MovedState } from "../../device/api/mod.ts";
import { route } from "../../device/api/routes.ts";
import { translate } from "../../device/api/translate.ts";
import { Work, WORK_MAX } from "../../device/api/work.ts";
import { attachRequest, mapRequest, unmapRequest } from "../../device/iommu/driver_requests.ts";
import {
  createMemoryFile,
  type Descriptor,
  HostPages,
  mapMemoryFile,
  type SharedMemory,
} from "../../device/host/mod.ts";
import { S_OK } from "../../device/iommu/wire.ts";
import type { MemoryRegion } from "../../vring/mod.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "./in_process_guest.ts";
import { frameOf } from "./host/page_frames.ts";

export const PAGE = 4096;
export const ENDPOINT = 24;
export const IOVA = 0x4000_0000;
/** Guest RAM that the tests map: 64 pages. */
export const RAM = 0x100_0000;
export const PAGES = 64;
export const SIZE = PAGES * PAGE;

/** Guest RAM of a memory file, mapped a second time to look at. */
export class Module implements Disposable {
  readonly file: Descriptor = createMemoryFile("module-test", SIZE);
  readonly seen: SharedMemory = mapMemoryFile(this.file, 0, SIZE);
  readonly mapping: SharedMemory = mapMemoryFile(this.file, 0, SIZE);
  readonly region: MemoryRegion;

  constructor(guestAddress: number = RAM) {
    this.region = { guestAddress, size: SIZE, buffer: this.mapping.buffer, offset: 0 };
  }

  /** The bytes, by another mapping. */
  get bytes(): Uint8Array {
    return new Uint8Array(this.seen.buffer);
  }

  /** The frame of a page. */
  frame(page: number): number {
    return frameOf(this.seen.buffer, page * PAGE);
  }

  [Symbol.dispose](): void {
    this.mapping.close();
    this.seen.close();
    this.file.close();
  }
}

/** A guest whose device has host frames, and endpoint 24 in domain 1. */
export class World implements Disposable {
  readonly pages: HostPages;
  readonly guest: InProcessGuest;
  readonly lines: string[] = [];
  readonly context: ApiContext;

  constructor(maxPinned?: number) {
    const pages = HostPages.open();
    assert(typeof pages !== "string", String(pages));
    pages.onRefused = (line) => this.lines.push(line);
    this.pages = pages;
    this.guest = new InProcessGuest({
      ...DEFAULT_OPTIONS,
      bypass: false,
      hostMemory: pages,
      ...(maxPinned === undefined ? {} : { maxPinned }),
    });
    this.context = { device: this.guest.device, version: "0", connected: true, access: "full" };
    assertEquals(this.guest.request(attachRequest(1, ENDPOINT), 4).bytes[0], S_OK);
  }

  /** Sends a MAP of pages, at byte addresses. Returns its status. */
  map(iova: number, phys: number, pages: number, domain = 1): number {
    const virtStart = BigInt(iova);
    const virtEnd = virtStart + BigInt(pages * PAGE) - 1n;
    const map = mapRequest({ domain, virtStart, virtEnd, physStart: BigInt(phys), flags: 3 });
    return this.guest.request(map, 4).bytes[0];
  }

  unmap(iova: number, pages: number): number {
    const unmap = unmapRequest(1, BigInt(iova), BigInt(iova + pages * PAGE - 1));
    return this.guest.request(unmap, 4).bytes[0];
  }

  /** `inspect translate`. */
  translate(iova: number, endpoint = ENDPOINT): Record<string, unknown> {
    const query = new URLSearchParams({ endpoint: String(endpoint), iova: String(iova) });
    return translate(this.context, query) as Record<string, unknown>;
  }

  /** `inspect moved`. */
  moved(): MovedState[] {
    const work = new Work();
    let text = "";
    for (
      const piece of {
        [Symbol.iterator]: () =>
          route(
            this.context,
            "GET",
            { target: "/v1/moved", body: () => ({}), descriptors: [] },
            work,
          ),
      }
    ) {
      text += piece;
      work.begin();
    }
    assert(work.longest <= WORK_MAX + 64, `${work.longest} units at a time`);
    return JSON.parse(text);
  }

  [Symbol.dispose](): void {
    this.guest.close();
    this.pages.close();
  }
}
