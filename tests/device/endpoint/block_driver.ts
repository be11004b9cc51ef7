/**
 * A driver of a block device in this process, on rings in plain memory: what the device does, without sockets
 * and translation.
 *
 * @module
 */
import { BlockDevice, BlockDisk } from "../../../device/endpoint/mod.ts";
import { ImageFile } from "../../../device/host/mod.ts";
import type { GuestMemory, SplitDriverQueue, SplitQueue } from "../../../vring/mod.ts";
import { plainMemory, plainRing } from "../plain_ring.ts";

/** Bytes of memory; the ring is at the beginning. */
const MEMORY = 4 << 20;
const HEADER = 0x10000;
const DATA = 0x100000;
const STATUS = 0x18000;
/** A status that no device gives. */
export const NO_STATUS = 0xee;

/** How a disk is made. */
export interface DriverOptions {
  /** Bytes of the image. */
  readonly size: number;
  /** Whether it can only be read. */
  readonly readOnly?: boolean;
  /** Its name. */
  readonly serial?: string;
  /** Features that the driver agrees to besides none; all by default. */
  readonly features?: number;
}

/** The answer to a request. */
export interface BlockAnswer {
  /** Its status byte, {@linkcode NO_STATUS} if it was not written. */
  readonly status: number;
  /** The used length. */
  readonly used: number;
  /** The writable data part as it is afterwards. */
  readonly data: Uint8Array<ArrayBuffer>;
}

/** How a request is laid out. */
export interface Layout {
  /** Bytes of data to write; of a read, how many to ask for. */
  readonly data?: Uint8Array | number;
  /** Lengths that the data are cut into; what is left makes the last piece. */
  readonly pieces?: readonly number[];
  /** Bytes of header that are sent. */
  readonly header?: number;
  /** Whether there is room for a status; yes by default. */
  readonly status?: boolean;
  /** Address of the data, if not in memory of the driver's. */
  readonly address?: number;
  /** Address of the status. */
  readonly statusAddress?: number;
  /** What is in the buffer of a read beforehand; 0 by default. */
  readonly poison?: number;
}

/** A block device and its driver. */
export class BlockDriver {
  /** The device. */
  readonly device: BlockDevice;
  /** Path of the image. */
  readonly path: string;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #memory: GuestMemory;
  readonly #driver: SplitDriverQueue;
  readonly #queue: SplitQueue;

  /** Makes an image of random bytes and a device for it. */
  constructor(options: DriverOptions) {
    this.path = Deno.makeTempFileSync();
    const content = new Uint8Array(options.size);
    for (let i = 0; i < content.length; i += 65536) {
      crypto.getRandomValues(content.subarray(i, i + 65536));
    }
    Deno.writeFileSync(this.path, content);
    const { readOnly = false, serial = "disk", features = ~0 } = options;
    const disk = new BlockDisk(ImageFile.open(this.path, !readOnly), readOnly, serial);
    this.device = new BlockDevice(disk, 1);
    this.device.featuresAgreed(this.device.featuresLow & features, 0);
    const { memory, bytes } = plainMemory(MEMORY);
    this.#memory = memory;
    this.#bytes = bytes;
    const { driver, queue } = plainRing(memory, 0, 128);
    this.#driver = driver;
    this.#queue = queue;
    this.device.queueStarted(0, this.#queue);
  }

  /** The image as it is now. */
  get image(): Uint8Array<ArrayBuffer> {
    return Deno.readFileSync(this.path);
  }

  /** Makes a request available to the device. */
  send(type: number, sector: number | bigint, layout: Layout = {}): void {
    const view = new DataView(this.#bytes.buffer);
    view.setUint32(HEADER, type, true);
    view.setUint32(HEADER + 4, 0, true);
    view.setBigUint64(HEADER + 8, BigInt(sector), true);
    this.#bytes[STATUS] = NO_STATUS;
    const { data = 0, header = 16, address = DATA } = layout;
    this.#driver.begin();
    if (header > 0) this.#driver.addReadable(HEADER, header);
    const length = typeof data === "number" ? data : data.length;
    if (typeof data === "number") this.#bytes.fill(layout.poison ?? 0, DATA, DATA + length);
    else this.#bytes.set(data, DATA);
    let at = 0;
    for (const piece of [...layout.pieces ?? [], length]) {
      const size = Math.min(piece, length - at);
      if (size === 0) continue;
      if (typeof data === "number") this.#driver.addWritable(address + at, size);
      else this.#driver.addReadable(address + at, size);
      at += size;
    }
    if (layout.status ?? true) this.#driver.addWritable(layout.statusAddress ?? STATUS, 1);
    this.#driver.commit();
    this.#driver.kick();
  }

  /** Has the device work until it has nothing to do. Returns how often it did. */
  serve(): number {
    let turns = 0;
    while (this.device.serve(0, this.#queue)) turns++;
    return turns;
  }

  /** Stops the queue. */
  stop(): void {
    this.device.queueStopped(0);
  }

  /** The next answer, if there is one. */
  reap(length = 0): BlockAnswer | undefined {
    if (!this.#driver.reap()) return undefined;
    return {
      status: this.#bytes[STATUS],
      used: this.#driver.usedLength,
      data: this.#bytes.slice(DATA, DATA + length),
    };
  }

  /** Sends a request and gives its answer, however long it takes. */
  async request(
    type: number,
    sector: number | bigint,
    layout: Layout = {},
  ): Promise<BlockAnswer> {
    const progress = Promise.withResolvers<void>();
    this.device.onProgress = () => progress.resolve();
    this.send(type, sector, layout);
    this.serve();
    const length = typeof layout.data === "number" ? layout.data : 0;
    const answer = this.reap(length);
    if (answer !== undefined) return answer;
    await progress.promise;
    this.serve();
    return this.reap(length)!;
  }

  /** Ends device and image. */
  close(): void {
    this.device.close();
    Deno.removeSync(this.path);
  }

  /** Ends it at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }
}
