/**
 * A warm-up before the first guest connects: the whole path of a request runs often enough to be compiled.
 *
 * V8 interprets code at first and compiles it after some ten thousand runs, on threads that take a processor from the
 * guest, which spins while it waits for its IOMMU. Without a warm-up, the first 30 000 calls of a guest took 17 µs to
 * map a page and 9 to unmap it, instead of 14 and 6. So before a front end is accepted, the device is served to a
 * driver in this process, over a real connection, with real memory and rings. That takes a quarter of a second.
 *
 * V8's assumptions have to hold for the device that is served afterwards:
 *
 * - Several devices are warmed up, one after the other. Code that was compiled for the only object of its kind is
 *   discarded at the second one.
 * - An `ArrayBuffer` is detached first. Before that has happened in a process, V8 compiles code that assumes it cannot,
 *   and discards all of it at the first time; a front end may remove memory at any time.
 */
import { PAGE_SIZE } from "../address.ts";
import { CONFIG_SIZE } from "../iommu/config_space.ts";
import type { EndpointRange } from "../iommu/endpoint_table.ts";
import { eventLoopTurn, PollSet, UnixStream } from "../host/mod.ts";
import { type DeviceOptions, IommuDevice } from "../iommu/iommu_device.ts";
import { Log } from "../log.ts";
import { DeviceLoop } from "./loop.ts";
import { type RequestMemory, WarmUpDriver } from "./warm_up_driver.ts";
import { BackEnd, FrontEnd, type FrontEndQueue, type RingFeatures } from "../vhost_user/mod.ts";
import { REQUEST_QUEUE } from "../iommu/wire.ts";

/** Devices that are made one after the other. */
const DEVICES = 3;
/** Times that all mappings of each device are made and removed, over all formats. */
const ROUNDS = 12;
/** Requests after which the loop ends and begins again, as that has to be compiled, too. */
const BREAK_AFTER = 2500;
/** Milliseconds after which no further device is made. */
const LONGEST_MS = 1000;
/** Guest memory: more than one piece, since the one found last is a path of its own. */
const MEMORY_ADDRESSES = [0, 1 << 24];
const MEMORY_BYTES = 1 << 20;
/** Where the ring is in the first piece: behind the requests. */
const RING_ADDRESS = 1 << 16;
const RING_SIZE = 128;
/** `page_size_mask` and `probe_size` in the configuration space. */
const PAGE_SIZE_MASK_AT = 0;
const PROBE_SIZE_AT = 32;
/** Bytes of table memory. */
const TABLE_BYTES = 32 << 20;

/** The result of a warm-up. */
export interface WarmUp {
  /** Requests that were sent. */
  readonly requests: number;
  /** How many of them were answered with OK: all, unless the options forbid what the driver asks for. */
  readonly succeeded: number;
}

/**
 * Warms up with devices like the one that is going to be served. They are closed when it returns.
 *
 * @param ringFeatures The ring features that are going to be offered.
 * @throws {RangeError} If the options contradict each other.
 */
export async function warmUp(
  options: DeviceOptions,
  ringFeatures: RingFeatures,
): Promise<WarmUp> {
  new ArrayBuffer(1).transfer(0);
  const end = performance.now() + LONGEST_MS;
  let requests = 0;
  let succeeded = 0;
  for (let i = 0; i < DEVICES && performance.now() < end; i++) {
    const driver = await warmUpOnce(options, ringFeatures);
    requests += driver.total;
    succeeded += driver.succeeded;
  }
  return { requests, succeeded };
}

/** A small device like that of the options, which lets the driver map anywhere. */
function warmUpDevice(options: DeviceOptions): IommuDevice {
  const { endpoints, reserved, bypass, tableBaseFrame } = options;
  return new IommuDevice({
    endpoints,
    reserved,
    bypass,
    tableBaseFrame,
    ...(options.pageSizes === undefined ? {} : { pageSizes: options.pageSizes }),
    maxDomains: endpoints.length,
    maxMappings: 2 ** 20,
    maxTableMemory: TABLE_BYTES,
  });
}

/** Makes a device, serves it to a driver, and ends both. */
async function warmUpOnce(
  options: DeviceOptions,
  ringFeatures: RingFeatures,
): Promise<WarmUpDriver> {
  const device = warmUpDevice(options);
  const endpoints = endpointOfEachFormat(device, options.endpoints);
  using poll = new PollSet();
  const log = new Log("warn");
  const [front, back] = UnixStream.pair();
  const backEnd = new BackEnd(back, device, { log, ringFeatures });
  const frontEnd = new FrontEnd(front, { acceptHigh: -1 });
  try {
    const { driver, queue } = await served(backEnd, setUp(frontEnd, endpoints));
    for (let i = 0; !driver.isDone && backEnd.isOpen; i++) {
      const loop = new DeviceLoop(device, poll, log, 1000, [driver]);
      driver.onBreak = () => loop.stop();
      // A loop finds requests when it wakes, or nothing at first.
      if (i % 2 === 0) driver.begin();
      queue.kickEvent.signal();
      await loop.serve(backEnd, undefined, () => {});
    }
    return driver;
  } finally {
    frontEnd.close();
    backEnd.close();
    device.close();
  }
}

/** Awaits a promise of a front end while the back end answers its messages. */
async function served<T>(backEnd: BackEnd, promise: Promise<T>): Promise<T> {
  let settled = false;
  const ended = promise.finally(() => settled = true);
  while (!settled && backEnd.onReadable()) {
    await eventLoopTurn();
  }
  return await ended;
}

/** Does what a VMM and a guest's driver do before the first request. */
async function setUp(
  frontEnd: FrontEnd,
  endpoints: readonly number[],
): Promise<{ readonly driver: WarmUpDriver; readonly queue: FrontEndQueue }> {
  await frontEnd.negotiate();
  const memory: RequestMemory[] = [];
  for (const address of MEMORY_ADDRESSES) {
    const { mapping } = await frontEnd.addMemory(address, MEMORY_BYTES);
    memory.push({ buffer: mapping.buffer, address });
  }
  const queue = await frontEnd.startQueue(REQUEST_QUEUE, {
    size: RING_SIZE,
    address: RING_ADDRESS,
  });
  const config = (await frontEnd.readConfig(0, CONFIG_SIZE)).slice();
  const fields = new DataView(config.buffer);
  const pageSizes = fields.getUint32(PAGE_SIZE_MASK_AT, true);
  const driver = new WarmUpDriver(queue.driver, {
    memory,
    endpoints,
    granulePages: (pageSizes & -pageSizes) / PAGE_SIZE,
    probeSize: fields.getUint32(PROBE_SIZE_AT, true),
    rounds: Math.ceil(ROUNDS / endpoints.length),
    breakAfter: BREAK_AFTER,
  });
  return { driver, queue };
}

/** An endpoint of every format. */
function endpointOfEachFormat(
  { endpoints }: IommuDevice,
  ranges: readonly EndpointRange[],
): number[] {
  const ofFormat = new Map<string, number>();
  for (const { first } of ranges) {
    const format = endpoints.formatOf(first);
    if (format !== undefined) ofFormat.set(format, first);
  }
  return [...ofFormat.values()];
}
