/**
 * Our device, served on a socket as `serve` does it and driven by a front end over real rings in shared memory.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { READ, WRITE } from "../../pagetable/mod.ts";
import { EndpointMemory } from "../../device/endpoint/endpoint_memory.ts";
import { UnixStream } from "../../device/host/mod.ts";
import { IommuDevice } from "../../device/iommu/iommu_device.ts";
import { Log } from "../../device/log.ts";
import { DeviceServer } from "../../device/serving/device_server.ts";
import { FrontEnd, type FrontEndQueue, TransportFeature } from "../../device/vhost_user/mod.ts";
import { piecesOf } from "../device/in_process_guest.ts";
import {
  type AccessResult,
  type Answer,
  type Configuration,
  type DeviceUnderTest,
  POISON,
} from "./subject.ts";
import { optionsOf } from "./viommu_options.ts";

/** How the rings are laid out. */
export interface RingLayout {
  readonly packed: boolean;
  readonly eventIndex: boolean;
  readonly indirect: boolean;
  readonly inOrder: boolean;
}

const MEMORY_SIZE = 1 << 20;
/** Guest addresses of the two rings and of the buffers. */
const REQUEST_RING = 0x0;
const EVENT_RING = 0x20000;
const READABLE = 0x40000;
const WRITABLE = 0x50000;
const EVENT = 0x60000;
const RING_SIZE = 8;
/** Microseconds for which the device watches its rings. */
const WATCH = 100;
/** Milliseconds for an answer or a report. */
const PATIENCE = 5000;

/** A served device and the front end that has set it up. Open it with {@linkcode FrontEndDevice.open}. */
export class FrontEndDevice implements DeviceUnderTest {
  readonly #device: IommuDevice;
  readonly #server: DeviceServer;
  readonly #served: Promise<void>;
  readonly #frontEnd: FrontEnd;
  readonly #warnings: string[] = [];
  #memory: Uint8Array<ArrayBuffer> = new Uint8Array(0);
  #requests!: FrontEndQueue;
  #events!: FrontEndQueue;

  private constructor(
    configuration: Configuration,
    withoutNegotiating: number,
    layout: RingLayout,
  ) {
    const log = new Log("warn", (line) => this.#warnings.push(line));
    this.#device = new IommuDevice(optionsOf(configuration));
    this.#server = new DeviceServer(this.#device, log, WATCH);
    const [ours, theirs] = UnixStream.pair();
    this.#served = this.#server.run(ours);
    const { EVENT_IDX, INDIRECT_DESC, LOG_ALL } = TransportFeature;
    const { VERSION_1, RING_PACKED, IN_ORDER } = TransportFeature;
    this.#frontEnd = new FrontEnd(theirs, {
      acceptLow: ~(withoutNegotiating | LOG_ALL | (layout.eventIndex ? 0 : EVENT_IDX) |
        (layout.indirect ? 0 : INDIRECT_DESC)),
      acceptHigh: VERSION_1 | (layout.packed ? RING_PACKED : 0) | (layout.inOrder ? IN_ORDER : 0),
    });
  }

  /** Serves a device, connects to it and starts its queues. */
  static async open(
    configuration: Configuration,
    withoutNegotiating: number,
    layout: RingLayout,
  ): Promise<FrontEndDevice> {
    const opened = new FrontEndDevice(configuration, withoutNegotiating, layout);
    const frontEnd = opened.#frontEnd;
    await frontEnd.negotiate();
    const { mapping } = await frontEnd.addMemory(0, MEMORY_SIZE);
    opened.#memory = new Uint8Array(mapping.buffer);
    await opened.#startQueues();
    return opened;
  }

  async #startQueues(): Promise<void> {
    this.#memory.fill(0);
    const frontEnd = this.#frontEnd;
    this.#requests = await frontEnd.startQueue(0, { size: RING_SIZE, address: REQUEST_RING });
    this.#events = await frontEnd.startQueue(1, { size: RING_SIZE, address: EVENT_RING });
  }

  get features(): number {
    return this.#device.featuresLow;
  }

  async request(readable: Uint8Array, writableLength: number, pieces = 1): Promise<Answer> {
    const { driver } = this.#requests;
    this.#memory.set(readable, READABLE);
    this.#memory.fill(POISON, WRITABLE, WRITABLE + writableLength);
    driver.begin();
    for (const [address, length] of piecesOf(READABLE, readable.length, pieces)) {
      driver.addReadable(address, length);
    }
    for (const [address, length] of piecesOf(WRITABLE, writableLength, pieces)) {
      driver.addWritable(address, length);
    }
    driver.commit();
    this.#requests.kick();
    if (!await this.#requests.reap(PATIENCE)) throw new Error("Cannot find the answer in time");
    const bytes = this.#memory.slice(WRITABLE, WRITABLE + writableLength);
    return { length: driver.usedLength, bytes };
  }

  async readConfig(): Promise<Uint8Array> {
    return (await this.#frontEnd.readConfig(0, this.#device.configSize)).slice();
  }

  async writeConfig(offset: number, value: number): Promise<void> {
    await this.#frontEnd.writeConfig(offset, Uint8Array.of(value));
  }

  /** A device reset is a message; for a reboot QEMU sends other messages, none of which names it. */
  async reset(kind: "device" | "system"): Promise<void> {
    const frontEnd = this.#frontEnd;
    if (kind === "device") {
      await frontEnd.resetDevice();
    } else {
      const queues = [this.#requests, this.#events];
      for (const queue of queues) await frontEnd.enableQueue(queue, false);
      for (const queue of queues) await frontEnd.stopQueue(queue);
      await frontEnd.readConfig(0, this.#device.configSize);
    }
    await frontEnd.setFeatures(frontEnd.featuresLow, frontEnd.featuresHigh);
    await this.#startQueues();
  }

  access(endpoint: number, iova: bigint, access: "r" | "w"): Promise<AccessResult> {
    const page = Number(iova >> 12n);
    const walk = this.#device.walk(endpoint, page, access === "r" ? READ : WRITE);
    if (!walk.ok) return Promise.resolve("fault");
    return Promise.resolve({ phys: BigInt(walk.frame) * 4096n + (iova & 0xfffn) });
  }

  async fault(
    endpoint: number,
    iova: bigint,
    access: "r" | "w",
    bufferSize: number,
  ): Promise<Answer | undefined> {
    const { driver } = this.#events;
    this.#memory.fill(POISON, EVENT, EVENT + bufferSize);
    driver.begin();
    driver.addWritable(EVENT, bufferSize);
    driver.commit();
    this.#events.kick();
    const memory = new EndpointMemory(this.#device, endpoint, this.#device.memory);
    memory.resolve(Number(iova & 0xfffn), 1, access === "w", Number(iova >> 12n));
    memory.close();
    if (!await this.#events.reap(PATIENCE)) return undefined;
    return { length: driver.usedLength, bytes: this.#memory.slice(EVENT, EVENT + bufferSize) };
  }

  async close(): Promise<void> {
    this.#frontEnd.close();
    await this.#served;
    this.#device.close();
    assertEquals(this.#warnings, []);
  }
}
