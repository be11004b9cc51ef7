/**
 * An IOMMU whose driver is in this process, and a device behind it on a real socket, served by the real loop.
 *
 * Guest memory of the endpoint's front end is its own; the IOMMU has as much RAM at the same addresses. What
 * the driver of the endpoint writes into descriptors is an I/O virtual address.
 *
 * @module
 */
import type { PollSource } from "../../../device/poll_source.ts";
import { attachRequest, mapRequest } from "../../../device/iommu/driver_requests.ts";
import {
  type EndpointDevice,
  EndpointService,
  EntropyDevice,
  SeededRandom,
} from "../../../device/endpoint/mod.ts";
import { UnixListener } from "../../../device/host/mod.ts";
import { Log } from "../../../device/log.ts";
import { DeviceServer } from "../../../device/serving/device_server.ts";
import {
  FrontEnd,
  type FrontEndQueue,
  type FrontEndRegion,
  TransportFeature,
} from "../../../device/vhost_user/mod.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "../in_process_guest.ts";

/** What determines the bytes of {@linkcode rng}. */
export const SEED = 4711;
/** Fault reasons and flags (virtio 1.4, 5.13.6.9). */
export const R_DOMAIN = 1;
export const R_MAPPING = 2;
export const READ = 1 | 1 << 8;
export const WRITE = 2 | 1 << 8;
/** Where the tests have their ring and a buffer, guest-physical. */
export const RING = 0x4000;
export const BUFFER = 0x20000;

/** An entropy device that gives the same bytes each time. */
export function rng(): EntropyDevice {
  return new EntropyDevice(new SeededRandom(SEED));
}

/** What I/O virtual addresses are above the guest-physical ones. */
export const IOVA = 0x1000_0000;
/** The endpoint. */
export const ENDPOINT = 24;
/** Bytes of guest memory. */
export const MEMORY = 1 << 20;

/** How the world begins. */
export interface WorldOptions {
  /** Whether unattached endpoints reach memory. */
  readonly bypass?: boolean;
  /** What I/O virtual addresses are above the guest-physical ones; {@linkcode IOVA} by default. */
  readonly shift?: number;
  /** Makes what is served besides. */
  readonly beside?: (world: EndpointWorld, log: Log) => PollSource;
}

/** The IOMMU, its driver, the device and its front end. */
export class EndpointWorld implements AsyncDisposable {
  /** The IOMMU and its driver. */
  readonly guest: InProcessGuest;
  /** What serves the device. */
  readonly service: EndpointService;
  /** Log lines so far. */
  readonly lines: string[] = [];
  /** Where the service listens. */
  readonly path: string;
  /** Where the IOMMU does. */
  readonly iommuPath: string;
  readonly #shift: number;
  readonly #server: DeviceServer;
  readonly #folder: string;
  readonly #done: Promise<void>;
  readonly #opened: FrontEnd[] = [];

  /** The device, served; nothing is attached or connected. */
  constructor(device: EndpointDevice, options: WorldOptions = {}) {
    this.guest = new InProcessGuest({ ...DEFAULT_OPTIONS, bypass: options.bypass ?? false });
    this.#shift = options.shift ?? IOVA;
    this.#folder = Deno.makeTempDirSync();
    this.path = `${this.#folder}/ep.sock`;
    this.iommuPath = `${this.#folder}/iommu.sock`;
    const log = new Log("debug", (line) => this.lines.push(line));
    this.service = new EndpointService({
      iommu: this.guest.device,
      endpoint: ENDPOINT,
      device,
      listener: UnixListener.listen(this.path),
      log,
    });
    const beside = options.beside === undefined ? [] : [options.beside(this, log)];
    this.#server = new DeviceServer(this.guest.device, log, 0, [this.service, ...beside]);
    device.onProgress = () => this.#server.wake();
    this.#done = this.#server.run(UnixListener.listen(this.iommuPath));
  }

  /** Warnings so far. */
  get warnings(): readonly string[] {
    return this.lines.filter((line) => line.startsWith("viommu: warn: "));
  }

  /** Attaches the endpoint to a domain and maps all of memory in it. */
  attach(domain = 1): void {
    this.guest.request(attachRequest(domain, ENDPOINT), 4);
    this.map(0, MEMORY - 1, 3, domain);
  }

  /** Maps guest-physical bytes `[first, last]` at their I/O virtual addresses. */
  map(first: number, last: number, flags = 3, domain = 1): void {
    const virtStart = BigInt(first + this.#shift);
    const virtEnd = BigInt(last + this.#shift);
    this.guest.request(
      mapRequest({ domain, virtStart, virtEnd, physStart: BigInt(first), flags }),
      4,
    );
  }

  /**
   * Connects a front end with memory. It is closed with the world, or before.
   *
   * @param high Features 32–63 that it accepts besides VERSION_1 and ACCESS_PLATFORM.
   */
  async connect(high = 0): Promise<Connected> {
    const frontEnd = FrontEnd.connect(this.path, {
      // The driver's queues would put guest-physical addresses of indirect tables into their rings.
      acceptLow: ~(TransportFeature.LOG_ALL | TransportFeature.INDIRECT_DESC),
      acceptHigh: TransportFeature.VERSION_1 | TransportFeature.ACCESS_PLATFORM | high,
      iovaOffset: this.#shift,
    });
    this.#opened.push(frontEnd);
    await frontEnd.negotiate();
    return { frontEnd, region: await frontEnd.addMemory(0, MEMORY) };
  }

  /** The next fault report: reason, flags, endpoint and address. */
  takeFault(): readonly [number, number, number, bigint] | undefined {
    this.guest.offerEventBuffer(24);
    const event = this.guest.takeEvent(24);
    if (event === undefined) return undefined;
    const view = new DataView(event.bytes.buffer);
    return [
      view.getUint8(0),
      view.getUint32(4, true),
      view.getUint32(8, true),
      view.getBigUint64(16, true),
    ];
  }

  /** Ends everything; throws if the IOMMU leaked something. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const frontEnd of this.#opened) frontEnd.close();
    this.#server.stop();
    await this.#done;
    this.guest.close();
    await Deno.remove(this.#folder, { recursive: true });
  }
}

/** A front end of the device. */
export interface Connected {
  /** The session. */
  readonly frontEnd: FrontEnd;
  /** Its memory. */
  readonly region: FrontEndRegion;
}

/** Bytes of guest memory as the driver sees them. */
export function bytesOf({ region }: Connected): Uint8Array {
  return new Uint8Array(region.mapping.buffer);
}

/** Asks an entropy device for bytes at an address; the used length, or undefined if no answer comes. */
export async function ask(
  queue: FrontEndQueue,
  address: number,
  length: number,
  patience = 5000,
): Promise<number | undefined> {
  queue.driver.begin();
  queue.driver.addWritable(address, length);
  queue.driver.commit();
  queue.kick();
  return await queue.reap(patience) ? queue.driver.usedLength : undefined;
}
