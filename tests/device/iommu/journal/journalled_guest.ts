/**
 * A guest whose device ends and begins again, in one process: all that outlives a device is the guest's memory, the journal
 * and the snapshot, and what a VMM knows: which memory there is and whether the ring runs.
 *
 * A message of the VMM during which the device ends is served again by the next one: the holder of the connection keeps it.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { type DeviceOptions, IommuDevice } from "../../../../device/iommu/iommu_device.ts";
import { Journal } from "../../../../device/iommu/journal/journal.ts";
import { RESV_MEM_MSI } from "../../../../device/iommu/reserved_region.ts";
import { Turn } from "../../../../device/iommu/turn.ts";
import type { ResetKind, StartSign } from "../../../../device/virtio_device.ts";
import { READ, WRITE } from "../../../../pagetable/mod.ts";
import {
  type DriverQueue,
  FRESH_PACKED_BASE,
  GuestMemory,
  type MemoryRegion,
  PackedDriverQueue,
  PackedQueue,
  type Queue,
  SplitDriverQueue,
  SplitQueue,
} from "../../../../vring/mod.ts";

/** Two formats; limits that a short history reaches. */
export const OPTIONS: DeviceOptions = {
  endpoints: [{ first: 0, last: 15, format: "vtd-ss" }, {
    first: 16,
    last: 31,
    format: "smmuv3-s1",
  }],
  reserved: [
    { firstPage: 40, lastPage: 43, subtype: RESV_MEM_MSI, firstEndpoint: 3, lastEndpoint: 3 },
  ],
  inputRange: { firstPage: 0, lastPage: 2 ** 24 - 1 },
  bypass: false,
  maxDomains: 4,
  maxMappings: 12,
  maxTableMemory: 1 << 18,
  tableBaseFrame: 2 ** 20,
};

/** The layout of the ring. */
export interface RingKind {
  readonly packed: boolean;
  readonly inOrder: boolean;
}

export const RING_KINDS: readonly RingKind[] = [false, true].flatMap((packed) =>
  [false, true].map((inOrder) => ({ packed, inOrder }))
);

export function nameOf({ packed, inOrder }: RingKind): string {
  return `${packed ? "packed" : "split"}${inOrder ? ", in order" : ""}`;
}

/** First page of memory that comes and goes, and its pages. */
export const SPARE_PAGE = 0x40000;
const SPARE_PAGES = 16;
const MEMORY_BYTES = 0xa000;
const RING_SIZE = 16;
const RING = 0x1000;
const REQUESTS = 0x8000;
const STRIDE = 512;
const ANSWER = 128;
/** Bytes of the writable part of each request: room for properties. */
const ANSWER_BYTES = 132;

/** An answer as the driver found it: used length and writable part. */
type Answer = string;

/** A guest and its devices, one after another. */
export class JournalledGuest implements Disposable {
  device!: IommuDevice;
  readonly journalBuffer: ArrayBuffer;
  /** The last snapshot that was kept. */
  snapshot: Uint8Array<ArrayBuffer> | undefined;
  /** What the driver has been answered. */
  readonly answers: Answer[] = [];
  /** Everything is served before a device holds back answers for longer than this many turns. */
  onHeld: () => void = () => {};
  /** Called for each device before it takes over. */
  onDevice: (device: IommuDevice) => void = () => {};
  readonly #kind: RingKind;
  readonly #options: DeviceOptions;
  readonly #memory = new GuestMemory();
  readonly #bytes = new Uint8Array(MEMORY_BYTES);
  readonly #words = new Int32Array(this.#bytes.buffer);
  readonly #driver: DriverQueue;
  readonly #turn = new Turn();
  readonly #slots = new Map<number, number>();
  #queue!: Queue;
  /** Where the ring stopped last. */
  #base: number | undefined;
  #sent = 0;
  /** What the VMM has said and the device has acknowledged. */
  readonly #regions = new Set<MemoryRegion>();
  #runs = false;
  readonly #spare: MemoryRegion = {
    guestAddress: SPARE_PAGE * 4096,
    size: SPARE_PAGES * 4096,
    buffer: new ArrayBuffer(SPARE_PAGES * 4096),
    offset: 0,
  };

  constructor(kind: RingKind, options: DeviceOptions = OPTIONS, journalBytes = 1 << 16) {
    this.#kind = kind;
    this.#options = options;
    this.journalBuffer = new ArrayBuffer(journalBytes);
    const { buffer } = this.#bytes;
    const region = { guestAddress: 0, size: MEMORY_BYTES, buffer, offset: 0 };
    this.#memory.add(region);
    const setup = { space: this.#memory, address: RING, size: RING_SIZE, inOrder: kind.inOrder };
    this.#driver = kind.packed ? new PackedDriverQueue(setup) : new SplitDriverQueue(setup);
    this.start();
    this.device.memoryAdded(region);
    this.#regions.add(region);
    this.device.queueBegins(0, "new");
    this.startRing();
  }

  /** A checksum of guest memory, ring and buffers. */
  get checksum(): number {
    let sum = 0;
    for (const word of this.#words) sum = Math.imul(sum ^ word, 0x01000193);
    return sum;
  }

  /** The words of the request queue's record. */
  get recordWords(): Int32Array {
    return new Int32Array(this.journalBuffer, 64, 16);
  }

  /** Another device takes over, as after the end of the process. */
  start(): void {
    this.device = new IommuDevice(this.#options);
    this.onDevice(this.device);
    const journal = Journal.open(this.journalBuffer);
    assertEquals(this.device.journal.takeOver(journal, this.snapshot), undefined);
    for (const region of this.#regions) this.device.memoryAdded(region);
    this.device.featuresAgreed(~0, 0);
    if (this.#runs) this.#configure(true);
  }

  /** The VMM starts the ring. */
  startRing(): void {
    this.#configure(false);
    this.#runs = true;
  }

  /** The driver makes requests available at once. */
  send(...requests: readonly Uint8Array[]): void {
    const driver = this.#driver;
    for (const request of requests) {
      const slot = this.#sent++ % RING_SIZE;
      const at = REQUESTS + slot * STRIDE;
      this.#bytes.set(request, at);
      this.#bytes.fill(0xee, at + ANSWER, at + ANSWER + ANSWER_BYTES);
      driver.begin();
      driver.addReadable(at, request.length);
      driver.addWritable(at + ANSWER, ANSWER_BYTES);
      const token = driver.commit();
      if (token < 0) throw new Error("Cannot send so many requests at once");
      this.#slots.set(token, slot);
    }
    driver.kick();
  }

  /** The device serves all that there is. */
  serve(): void {
    const { device } = this;
    for (let idle = 0; idle < 3; idle++) {
      if (device.service(0, this.#queue, 256) > 0) idle = 0;
      while (device.hasWork) device.work(this.#turn);
      if (device.holds || device.iotlbListeners.isSettling) this.onHeld();
    }
    assertEquals(this.#queue.describeError(), "");
  }

  /** The device serves for one turn. */
  serveOnce(turn: Turn): void {
    this.device.service(0, this.#queue, 256, turn);
  }

  /** The driver takes the answers that it can see. Returns how many. */
  reap(): number {
    const driver = this.#driver;
    let count = 0;
    while (driver.reap()) {
      const at = REQUESTS + this.#slots.get(driver.token)! * STRIDE + ANSWER;
      const bytes = this.#bytes.subarray(at, at + ANSWER_BYTES);
      this.answers.push(`${driver.usedLength}: ${bytes.join()}`);
      count++;
    }
    return count;
  }

  /** Whether the memory that comes and goes is there. */
  get hasSpare(): boolean {
    return this.#regions.has(this.#spare);
  }

  /** Adds or removes the memory that comes and goes. */
  changeMemory(): void {
    if (this.hasSpare) {
      this.device.memoryRemoved(this.#spare);
      this.#regions.delete(this.#spare);
    } else {
      this.device.memoryAdded(this.#spare);
      this.#regions.add(this.#spare);
    }
  }

  /** The driver writes the bypass byte. */
  writeBypass(on: boolean): void {
    this.device.writeConfig(Uint8Array.of(on ? 1 : 0), 36);
  }

  /** The messages of a reset: the ring stops, the device is reset, the ring starts. */
  resetMessages(kind: ResetKind): readonly (() => void)[] {
    return [() => this.stopRing(), () => this.device.reset(kind), () => this.startRing()];
  }

  /** The messages of a guest that restarts, and whose new driver writes the bypass byte before it starts the queue. */
  rebootMessages(bypass: boolean): readonly (() => void)[] {
    return [
      () => this.stopRing(),
      () => this.writeBypass(bypass),
      () => {
        this.device.queueBegins(0, "new");
        this.startRing();
      },
    ];
  }

  /** The messages of a session that ends, and another that begins. */
  reconnectMessages(sign: StartSign): readonly (() => void)[] {
    const regions = [...this.#regions];
    return [
      () => {
        this.stopRing();
        this.device.disconnected();
        for (const region of regions) {
          if (this.#regions.has(region)) this.device.memoryRemoved(region);
        }
        this.#regions.clear();
      },
      () => {
        for (const region of regions) this.device.memoryAdded(region);
        for (const region of regions) this.#regions.add(region);
      },
      () => {
        this.device.queueBegins(0, sign);
        this.startRing();
      },
    ];
  }

  /** The messages of a VMM that stops and goes on. */
  pauseMessages(): readonly (() => void)[] {
    return [() => this.stopRing(), () => this.startRing()];
  }

  /** The ring stops. */
  stopRing(): void {
    this.device.queueStopped(0);
    this.#base = this.#queue.base;
    this.#queue.release();
    this.#runs = false;
  }

  /** A snapshot is taken and kept, and what is in it forgotten. */
  compact(): void {
    this.snapshot = this.device.journal.takeSnapshot();
    this.device.journal.snapshotKept(this.snapshot);
  }

  [Symbol.dispose](): void {
    while (this.device.hasWork) this.device.work(this.#turn);
    for (const region of this.#regions) this.device.memoryRemoved(region);
    this.device.close();
  }

  #configure(goesOn: boolean): void {
    const { packed, inOrder } = this.#kind;
    const { size, descriptors, driverArea, deviceArea } = this.#driver;
    this.#queue = packed ? new PackedQueue(this.#memory) : new SplitQueue(this.#memory);
    const record = this.device.queueRecord(0) ?? null;
    const setup = { size, descriptors, driverArea, deviceArea, inOrder, record, goesOn };
    const base = this.#base ?? (packed ? FRESH_PACKED_BASE : 0);
    assertEquals(this.#queue.configure({ ...setup, base }), 0);
    this.device.queueStarted(0, this.#queue, goesOn);
  }
}

/** Everything that a guest or an endpoint can find out about a device, and what it holds. */
export function stateOf(device: IommuDevice, pages: readonly number[]): unknown {
  const walks: string[] = [];
  for (const endpoint of [1, 2, 3, 17, 18]) {
    for (const page of pages) {
      for (const access of [READ, WRITE]) {
        const walk = device.walk(endpoint, page, access);
        const leaf = walk.depth - 1;
        const found = walk.bypass
          ? "bypass"
          : walk.ok
          ? `${walk.frame} ${walk.memoryType} ${walk.pathLow[leaf]} ${walk.pathHigh[leaf]}`
          : walk.faultName;
        walks.push(`${endpoint} ${page} ${access}: ${found}`);
      }
    }
  }
  return {
    bypass: device.bypass,
    life: device.life.copy(),
    mappings: device.iommu.mappingCount,
    pinned: device.guest.pinnedPages,
    domains: device.iommu.domains.map(({ id, bypass, endpoints, space }) => {
      const mappings: string[] = [];
      const cursor = space.mappings();
      while (cursor.next()) {
        mappings.push(`${cursor.first}-${cursor.last} ${cursor.index} ${cursor.protection}`);
      }
      return { id, bypass, endpoints: [...endpoints].map(({ id }) => id).sort(), mappings };
    }),
    walks,
  };
}
