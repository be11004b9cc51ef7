/**
 * A served device with a driver in the same process, and an IOTLB listener that acknowledges when a test says so.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { PollSource } from "../../../device/poll_source.ts";
import { attachRequest, mapRequest, unmapRequest } from "../../../device/iommu/driver_requests.ts";
import { Event, type PollSet, UnixListener } from "../../../device/host/mod.ts";
import { IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { Log } from "../../../device/log.ts";
import { DeviceServer } from "../../../device/serving/device_server.ts";
import type { IotlbListeners, RemoteIotlbListener } from "../../../device/iommu/iotlb_listeners.ts";
import {
  FrontEnd,
  type FrontEndQueue,
  type FrontEndRegion,
  TransportFeature,
} from "../../../device/vhost_user/mod.ts";
import { until } from "../../until.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import { temporaryPath } from "../host/host_state.ts";
import { keepRecord } from "../inflight_record.ts";

export const ENDPOINT = 24;
const RING = 0x1000;
const REQUEST = 0x10000;
const ANSWER = 0x20000;
const LAST_PAGE = 2 ** 52 - 1;

/** An IOTLB listener that acknowledges when the test says so, or by itself while it is waited for. */
class ScriptedListener implements RemoteIotlbListener, PollSource {
  /** What it was told, in order. */
  readonly calls: string[] = [];
  /** Acknowledgements it owes. */
  owed = 0;
  /** How often it was looked at. */
  looks = 0;
  readonly name = "scripted";
  onDue: () => void = () => {};
  readonly mustPoll = false;
  readonly #iotlbListeners: IotlbListeners;
  readonly #event = Event.create();
  #slot = -1;

  constructor(iotlbListeners: IotlbListeners) {
    this.#iotlbListeners = iotlbListeners;
    iotlbListeners.addRemote(ENDPOINT, this);
  }

  invalidate(firstPage: number, lastPage: number): void {
    this.#owe(`invalidate ${firstPage} ${lastPage}`);
  }

  invalidateAll(): void {
    this.#owe("invalidate all");
  }

  mapped(firstPage: number, lastPage: number): void {
    this.calls.push(lastPage === LAST_PAGE ? "mapped all" : `mapped ${firstPage} ${lastPage}`);
  }

  /** Acknowledges everything, as a message on a socket does: the loop finds out by itself. */
  acknowledge(): void {
    this.#event.signal();
  }

  addTo(poll: PollSet): void {
    this.#slot = poll.add(this.#event.descriptor.number);
  }

  look(poll: PollSet): void {
    this.looks++;
    if (poll.ready(this.#slot) === 0) return;
    this.#event.drain();
    this.#acknowledgeAll();
  }

  serve(): boolean {
    return false;
  }

  endSession(): void {}

  setNotifications(_on: boolean): boolean {
    return false;
  }

  close(): void {
    this.#iotlbListeners.remove(ENDPOINT, this);
    this.#event.close();
  }

  #owe(call: string): void {
    this.calls.push(call);
    this.owed++;
    this.#iotlbListeners.expect();
  }

  #acknowledgeAll(): void {
    this.#iotlbListeners.arrived(this.owed);
    this.owed = 0;
  }
}

/** What a ring is like. */
interface RingKind {
  readonly packed?: boolean;
  readonly inOrder?: boolean;
  /** Whether the front end keeps a record of requests in flight. */
  readonly record?: boolean;
}

export const RING_KINDS: readonly RingKind[] = [false, true].flatMap((packed) =>
  [false, true].flatMap((inOrder) => [false, true].map((record) => ({ packed, inOrder, record })))
);

export function nameOf({ packed, inOrder, record }: RingKind): string {
  return `${packed ? "packed" : "split"}${inOrder ? ", in order" : ""}` +
    (record ? ", with a record of requests in flight" : "");
}

/** A served device, its driver in the same process, and an IOTLB listener of one endpoint. */
export class World implements AsyncDisposable {
  readonly device = new IommuDevice({ ...DEFAULT_OPTIONS, bypass: false });
  readonly listener = new ScriptedListener(this.device.iotlbListeners);
  readonly frontEnd: FrontEnd;
  /** The memory that everything is in. */
  ring!: FrontEndRegion;
  readonly #server: DeviceServer;
  readonly #done: Promise<void>;
  #requests = 0;

  private constructor(watchMicroseconds: number, ring: RingKind) {
    const path = temporaryPath();
    const log = new Log("error");
    this.#server = new DeviceServer(this.device, log, watchMicroseconds, [this.listener]);
    this.#done = this.#server.run(UnixListener.listen(path));
    this.frontEnd = FrontEnd.connect(path, {
      acceptHigh: TransportFeature.VERSION_1 | (ring.packed ? TransportFeature.RING_PACKED : 0) |
        (ring.inOrder ? TransportFeature.IN_ORDER : 0),
    });
  }

  /** With a running request queue. */
  static async start(
    watchMicroseconds = 2000,
    ring: RingKind = {},
  ): Promise<[World, FrontEndQueue]> {
    const world = new World(watchMicroseconds, ring);
    await world.frontEnd.negotiate();
    world.ring = await world.frontEnd.addMemory(0, 1 << 20);
    if (ring.record) await keepRecord(world.frontEnd, 2, 64);
    const queue = await world.frontEnd.startQueue(0, { size: 64, address: RING });
    return [world, queue];
  }

  /** Puts requests into the ring, all shown to the device at once. */
  send(queue: FrontEndQueue, ...requests: readonly Uint8Array[]): void {
    const { memory } = this.frontEnd;
    for (const request of requests) {
      const at = this.#requests++ % 64;
      memory.resolve(REQUEST + at * 64, 64, true);
      memory.bytes.set(request, memory.offset);
      queue.driver.begin();
      queue.driver.addReadable(REQUEST + at * 64, request.length);
      queue.driver.addWritable(ANSWER + at * 64, 4);
      queue.driver.commit();
    }
    queue.kick();
  }

  /** How many answers come before it has been quiet for so long. */
  async answers(queue: FrontEndQueue, most: number, patience = 5000): Promise<number> {
    let count = 0;
    while (count < most && await queue.reap(patience)) count++;
    return count;
  }

  /** Waits until answers are held back. */
  async held(): Promise<void> {
    await until(() => this.device.holds, "the device holds answers back");
  }

  /** Attaches the endpoint and maps one page at each of some numbers. */
  async map(queue: FrontEndQueue, ...pages: readonly number[]): Promise<void> {
    this.send(queue, attachRequest(1, ENDPOINT), ...pages.map(mapPage));
    await this.held();
    this.listener.acknowledge();
    assertEquals(await this.answers(queue, 1 + pages.length), 1 + pages.length);
    this.listener.calls.length = 0;
  }

  /** Whether the device has a session. */
  get connected(): boolean {
    return this.#server.connected;
  }

  /** Ends the server as SIGTERM does. */
  async stop(): Promise<void> {
    this.#server.stop();
    await this.#done;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.frontEnd.close();
    await this.stop();
    this.device.close();
  }
}

export function mapPage(page: number): Uint8Array {
  const virtStart = BigInt(page) * 4096n;
  const virtEnd = virtStart + 4095n;
  return mapRequest({ domain: 1, virtStart, virtEnd, physStart: 0x80000n, flags: 3 });
}

export function unmapPage(page: number): Uint8Array {
  return unmapRequest(1, BigInt(page) * 4096n, BigInt(page) * 4096n + 4095n);
}

/** A promise, and whether it is fulfilled. */
export function watched<T>(promise: Promise<T>): {
  readonly done: Promise<T>;
  readonly isDone: () => boolean;
} {
  let isDone = false;
  const done = promise.then((value) => {
    isDone = true;
    return value;
  });
  return { done, isDone: () => isDone };
}
