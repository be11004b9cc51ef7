/**
 * The model behind the page: a virtio-iommu device, the guest that drives it, and one endpoint for each table format.
 *
 * Requests go over a virtqueue as those of a guest do, and are served by the same code that serves guests. All endpoints
 * can be attached to one domain, whose mappings then stand in tables of each format. Bits of table entries can be
 * flipped; they are restored before the next request, because what serves requests trusts its own tables.
 */
import {
  attachRequest,
  detachRequest,
  type DeviceEvent,
  type FaultEvent,
  IommuDevice,
  type MapFields,
  mapRequest,
  type RefusedEvent,
  statusName,
  Turn,
  unmapRequest,
} from "../../iommu/mod.ts";
import { BLOCKED, PAGE_SIZE, type WalkResult, WRITE } from "../../../pagetable/mod.ts";
import { SplitDriverQueue, SplitQueue } from "../../../vring/mod.ts";
import type { Mapping } from "./address_map.ts";
import { addressText, endpointText } from "../../address.ts";

/** Bytes of guest memory. What is mapped beyond is taken for device memory. */
export const GUEST_MEMORY = 32 << 20;
/** Pages of the range that the device reserves for interrupts, as x86 hosts do. */
export const RESERVED: { readonly firstPage: number; readonly lastPage: number } = {
  firstPage: 0xfee00,
  lastPage: 0xfeeff,
};
/** Guest-physical addresses of the request queue and of the two parts of a request. */
const RING = 0x0;
const READABLE = 0x4000;
const WRITABLE = 0x5000;
/** A turn without an end: nothing else waits here. */
const ENDLESS = new Turn();
/** Lines of the log that are kept. */
const LOG_LINES = 200;

/** An endpoint of the playground. */
export interface PlaygroundEndpoint {
  /** Its id. */
  readonly id: number;
  /** Its id as a PCI address. */
  readonly address: string;
  /** The format of its tables. */
  readonly format: string;
  /** The format's name in words. */
  readonly name: string;
}

/** The endpoints: one for each format. */
export const ENDPOINTS: readonly PlaygroundEndpoint[] = [
  { format: "vtd-ss", name: "VT-d second stage" },
  { format: "smmuv3-s1", name: "SMMUv3 stage 1" },
  { format: "amdv1", name: "AMD v1" },
  { format: "vtd-fs", name: "VT-d first stage" },
  { format: "smmuv3-s2", name: "SMMUv3 stage 2" },
].map((each, at) => ({ ...each, id: (at + 1) * 8, address: endpointText((at + 1) * 8) }));

/** One line of the log: a request or an access, and what came of it. */
export interface LogLine {
  readonly number: number;
  /** What was asked for. */
  readonly request: string;
  /** Whether it was done. */
  readonly ok: boolean;
  /** The status, or where an access led. */
  readonly answer: string;
  /** Why it was refused; empty if it was not. */
  readonly reason: string;
}

/** A bit of a table entry that was flipped. */
export interface FlippedBit {
  /** Byte address of the entry. */
  readonly at: bigint;
  /** Which bit of its 64. */
  readonly bit: number;
}

/** The device, its guest and its tables. */
export class Playground {
  /** The device. */
  readonly device: IommuDevice;
  readonly #ram = new Uint8Array(GUEST_MEMORY);
  readonly #driver: SplitDriverQueue;
  readonly #queue: SplitQueue;
  #log: readonly LogLine[] = [];
  #lines = 0;
  #flipped: readonly FlippedBit[] = [];

  /** A device to which nothing is attached. */
  constructor() {
    this.device = new IommuDevice({
      endpoints: ENDPOINTS.map(({ id, format }) => ({ first: id, last: id, format })),
      reserved: [{ ...RESERVED, subtype: 1 }],
      bypass: false,
      maxDomains: 64,
      maxMappings: 65536,
      maxTableMemory: 32 << 20,
      tableBaseFrame: 2 ** 20,
    });
    const { device } = this;
    const region = { guestAddress: 0, size: GUEST_MEMORY, buffer: this.#ram.buffer, offset: 0 };
    device.memory.add(region);
    device.memoryAdded(region);
    device.featuresAgreed(device.featuresLow, device.featuresHigh);
    this.#driver = new SplitDriverQueue({ space: device.memory, address: RING, size: 8 });
    this.#queue = new SplitQueue(device.memory);
    this.#queue.configure(this.#driver);
    device.queueStarted(0, this.#queue);
  }

  /** What was asked for, the last first. */
  get log(): readonly LogLine[] {
    return this.#log;
  }

  /** The bits that differ from what the device wrote. */
  get flipped(): readonly FlippedBit[] {
    return this.#flipped;
  }

  /** ATTACH: puts an endpoint into a domain. */
  attach(domain: number, endpoint: number): LogLine {
    const text = `ATTACH domain ${domain}, endpoint ${endpointText(endpoint)}`;
    return this.#request(text, attachRequest(domain, endpoint));
  }

  /** DETACH: takes an endpoint out of a domain. */
  detach(domain: number, endpoint: number): LogLine {
    const text = `DETACH domain ${domain}, endpoint ${endpointText(endpoint)}`;
    return this.#request(text, detachRequest(domain, endpoint));
  }

  /** MAP: maps a range of a domain. */
  map(fields: MapFields): LogLine {
    const { domain, virtStart, virtEnd, physStart, flags } = fields;
    const text = `MAP domain ${domain}, ${hex(virtStart)}-${hex(virtEnd)} to ${hex(physStart)}, ` +
      `flags ${flags}`;
    return this.#request(text, mapRequest(fields));
  }

  /** UNMAP: removes the mappings in a range of a domain. */
  unmap(domain: number, virtStart: bigint, virtEnd: bigint): LogLine {
    const text = `UNMAP domain ${domain}, ${hex(virtStart)}-${hex(virtEnd)}`;
    return this.#request(text, unmapRequest(domain, virtStart, virtEnd));
  }

  /**
   * DMA: an endpoint reads or writes eight bytes. Hardware walks the tables as they are, flipped bits included, and sets
   * accessed and dirty bits.
   *
   * @param address Byte address of the access.
   * @param access `READ` or `WRITE`.
   */
  dma(endpoint: number, address: bigint, access: number): LogLine {
    const page = Number(address >> 12n);
    const offset = Number(address & 0xfffn);
    const walk = this.device.access(endpoint, page, access);
    const text = `DMA ${access === WRITE ? "write" : "read"} of ${endpointText(endpoint)} at ` +
      hex(address);
    if (walk.ok) {
      const { frame } = walk;
      const place = `led to ${addressText(frame, offset)}`;
      const isMemory = frame * PAGE_SIZE + offset + 8 <= GUEST_MEMORY;
      return this.#add(text, true, place, isMemory ? "" : "this is beyond guest memory");
    }
    this.device.refused(endpoint, page, offset, access);
    const fault = this.#lastEvent() as FaultEvent;
    const why = walk.fault === BLOCKED ? "the endpoint is not attached" : "see the walk";
    return this.#add(text, false, `fault: ${fault.reason} (${fault.code})`, why);
  }

  /** Walks the tables of an endpoint, as hardware would, without setting bits in them. Valid until the next walk. */
  walk(endpoint: number, page: number, access: number): WalkResult {
    return this.device.walk(endpoint, page, access);
  }

  /** Changes one bit of a table entry behind the device's back. Twice is as before. */
  flip(at: bigint, bit: number): void {
    const { words, baseFrame } = this.device.hardware.memory;
    const byte = Number(at - BigInt(baseFrame) * BigInt(PAGE_SIZE));
    words[byte / 4 + (bit >> 5)] ^= 1 << (bit & 31);
    const others = this.#flipped.filter((each) => each.at !== at || each.bit !== bit);
    this.#flipped = others.length < this.#flipped.length ? others : [...others, { at, bit }];
  }

  /** Whether an entry is in the memory of the tables, so that its bits can be flipped. */
  canFlip(at: bigint): boolean {
    const { baseFrame, capacity } = this.device.hardware.memory;
    const frame = Number(at >> 12n);
    return frame >= baseFrame && frame < baseFrame + capacity;
  }

  /** Restores what the device wrote. */
  restore(): void {
    for (const { at, bit } of this.#flipped) this.flip(at, bit);
  }

  /** The domain that an endpoint is attached to. */
  domainOf(endpoint: number): number | undefined {
    return this.device.endpoints.seen(endpoint)?.domain?.id;
  }

  /** The ids of the domains, ascending. */
  get domains(): readonly number[] {
    return this.device.iommu.domains.map(({ id }) => id);
  }

  /** The mappings of a domain, by ascending address. */
  mappings(domain: number): readonly Mapping[] {
    const found: Mapping[] = [];
    const cursor = this.device.iommu.domain(domain)?.space.mappings(0);
    while (cursor?.next()) {
      const { first, last, index: frame, protection } = cursor;
      found.push({ first, last, frame, protection });
    }
    return found;
  }

  /** Gives the tables back. */
  close(): void {
    this.device.close();
  }

  /** Sends a request on the virtqueue and waits for its answer. */
  #request(text: string, readable: Uint8Array): LogLine {
    this.restore();
    const before = this.device.events.last;
    const driver = this.#driver;
    this.#ram.set(readable, READABLE);
    driver.begin();
    driver.addReadable(READABLE, readable.length);
    driver.addWritable(WRITABLE, 4);
    driver.commit();
    driver.kick();
    this.device.service(0, this.#queue, 8);
    while (this.device.hasWork) this.device.work(ENDLESS);
    this.device.service(0, this.#queue, 8);
    driver.reap();
    const status = statusName(this.#ram.subarray(WRITABLE), driver.usedLength);
    const event = this.#lastEvent();
    const refused = event !== undefined && event.number > before && event.kind === "refused";
    return this.#add(text, status === "OK", status, refused ? refusalText(event) : "");
  }

  #lastEvent(): DeviceEvent | undefined {
    const { events } = this.device;
    return [...events.since(events.last - 1)].at(-1);
  }

  #add(request: string, ok: boolean, answer: string, reason: string): LogLine {
    const line = { number: ++this.#lines, request, ok, answer, reason };
    this.#log = [line, ...this.#log].slice(0, LOG_LINES);
    return line;
  }
}

/** Why a request was refused. */
function refusalText({ reason, statement }: RefusedEvent): string {
  return statement === null ? reason : `${reason} (statement ${statement} of docs/conformance.md)`;
}

/** A byte address as text. */
function hex(address: bigint): string {
  return `0x${address.toString(16)}`;
}
