/**
 * An IOMMU with its driver, a proxied endpoint, and what is on both sides of it: a front end and a scripted back end, all
 * on real sockets and in the real loop.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { delay } from "@std/async";
import {
  attachRequest,
  mapRequest,
  unmapRequest,
} from "../../../../device/iommu/driver_requests.ts";
import { EndpointProxy, type EndpointProxyOptions } from "../../../../device/endpoint/mod.ts";
import { PollSet, UnixListener, UnixStream } from "../../../../device/host/mod.ts";
import { IommuDevice } from "../../../../device/iommu/iommu_device.ts";
import { Log } from "../../../../device/log.ts";
import { DeviceServer } from "../../../../device/serving/device_server.ts";
import {
  type Connection,
  FrontEnd,
  type FrontEndQueue,
  ProtocolFeature,
  Request,
  TransportFeature,
} from "../../../../device/vhost_user/mod.ts";
import { HANG_MS, until } from "../../../until.ts";
import { DEFAULT_OPTIONS } from "../../in_process_guest.ts";
import { ScriptedBackEnd } from "./scripted_back_end.ts";

/** The proxied endpoint. */
export const ENDPOINT = 24;
/** What user addresses of the proxied connection are above guest-physical ones. */
export const USER = 2 ** 40;
/** Bytes of guest memory on the proxied connection. */
export const MEMORY = 1 << 20;
const RING = 0x1000;
const REQUESTS = 0x10000;
const ANSWERS = 0x20000;
const EVENT_RING = 0x30000;
const EVENT = 0x38000;
const SLOTS = 64;

/** How the world begins. */
export interface ProxyWorldOptions {
  /** Whether unattached endpoints reach memory. */
  readonly bypass?: boolean;
  /** What becomes of mappings that may only be written. */
  readonly writeOnly?: EndpointProxyOptions["writeOnly"];
  /** Milliseconds for an acknowledgement. */
  readonly patience?: number;
  /** Whether the back end connects to the proxy. */
  readonly backEndConnects?: boolean;
  /** Further proxied endpoints. */
  readonly more?: readonly number[];
  /** Format of the endpoints' tables. */
  readonly format?: string;
}

/** All of it. */
export class ProxyWorld implements AsyncDisposable {
  /** The IOMMU. */
  readonly device: IommuDevice;
  /** The proxies, that of {@linkcode ENDPOINT} first. */
  readonly proxies: readonly EndpointProxy[];
  /** Log lines so far. */
  readonly lines: string[] = [];
  /** The IOMMU's own front end. */
  readonly driver: FrontEnd;
  /** Where back ends listen, or connect to. */
  readonly backEndPaths: readonly string[];
  /** Where front ends of the endpoints connect to. */
  readonly paths: readonly string[];
  /** The back ends' own sockets, unless they connect. */
  readonly listeners: (UnixListener | undefined)[];
  readonly #server: DeviceServer;
  readonly #folder: string;
  readonly #done: Promise<void>;
  readonly #opened: Disposable[] = [];
  #queue: FrontEndQueue | undefined;
  #events: FrontEndQueue | undefined;
  #sent = 0;

  constructor(options: ProxyWorldOptions = {}) {
    const { bypass = false, writeOnly = "widen", patience = 5000, backEndConnects = false } =
      options;
    const format = options.format ?? "vtd-ss";
    this.device = new IommuDevice({
      ...DEFAULT_OPTIONS,
      endpoints: [{ first: 0, last: 0xffff, format }],
      bypass,
    });
    this.#folder = Deno.makeTempDirSync();
    const log = new Log("debug", (line) => this.lines.push(line));
    const endpoints = [ENDPOINT, ...(options.more ?? [])];
    this.backEndPaths = endpoints.map((id) => `${this.#folder}/be${id}.sock`);
    this.paths = endpoints.map((id) => `${this.#folder}/fe${id}.sock`);
    this.listeners = this.backEndPaths.map((path) =>
      backEndConnects ? undefined : UnixListener.listen(path)
    );
    this.proxies = endpoints.map((endpoint, i) =>
      new EndpointProxy({
        iommu: this.device,
        endpoint,
        listener: UnixListener.listen(this.paths[i]),
        backEnd: backEndConnects ? UnixListener.listen(this.backEndPaths[i]) : this.backEndPaths[i],
        writeOnly,
        patience,
        log,
      })
    );
    this.#server = new DeviceServer(this.device, log, 0, this.proxies);
    for (const proxy of this.proxies) proxy.onDue = () => this.#server.wake();
    this.#done = this.#server.run(UnixListener.listen(`${this.#folder}/iommu.sock`));
    this.driver = FrontEnd.connect(`${this.#folder}/iommu.sock`);
  }

  /** A world whose guest driver runs. */
  static async start(options: ProxyWorldOptions = {}): Promise<ProxyWorld> {
    const world = new ProxyWorld(options);
    await world.driver.negotiate();
    await world.driver.addMemory(0, MEMORY);
    world.#queue = await world.driver.startQueue(0, { size: SLOTS, address: RING });
    world.#events = await world.driver.startQueue(1, { size: SLOTS, address: EVENT_RING });
    return world;
  }

  /** The driver's rings: requests, events. */
  get queues(): readonly FrontEndQueue[] {
    return [this.#queue!, this.#events!];
  }

  /** Log lines of level warn. */
  get warnings(): readonly string[] {
    return this.lines.filter((line) => line.startsWith("viommu: warn: "));
  }

  /** What the proxy of {@linkcode ENDPOINT} has counted. */
  get counters(): EndpointProxy["counters"] {
    return this.proxies[0].counters;
  }

  /** Connects a front end to a proxy, which finds its back end; nothing is negotiated. */
  async join(index = 0): Promise<[FrontEnd, ScriptedBackEnd]> {
    const frontEnd = this.connect(index);
    const listener = this.listeners[index];
    const backEnd = listener === undefined
      ? new ScriptedBackEnd(UnixStream.connect(this.backEndPaths[index]))
      : await ScriptedBackEnd.accept(listener);
    this.#opened.push(backEnd);
    return [frontEnd, backEnd];
  }

  /** Connects a front end to a proxy. */
  connect(index = 0): FrontEnd {
    const frontEnd = FrontEnd.connect(this.paths[index], {
      acceptHigh: TransportFeature.VERSION_1 | TransportFeature.ACCESS_PLATFORM,
      userOffset: USER,
    });
    this.#opened.push({ [Symbol.dispose]: () => frontEnd.close() });
    return frontEnd;
  }

  /**
   * Connects both sides as QEMU does: features, a channel, memory. Returns the front end's end of the channel, too.
   *
   * @param sizes Regions of guest memory: where, and how many bytes.
   */
  async session(
    index = 0,
    sizes: readonly (readonly [number, number])[] = [[0, MEMORY]],
  ): Promise<[FrontEnd, ScriptedBackEnd, UnixStream]> {
    const [frontEnd, backEnd] = await this.join(index);
    await frontEnd.negotiate();
    const [ours, theirs] = UnixStream.pair();
    this.#opened.push(ours);
    await frontEnd.tell(Request.SET_BACKEND_REQ_FD, new Uint8Array(0), [theirs.descriptor]);
    theirs.close();
    assertEquals(frontEnd.agreed(ProtocolFeature.BACKEND_REQ), true);
    for (const [address, size] of sizes) await frontEnd.addMemory(address, size);
    await delivered(frontEnd);
    return [frontEnd, backEnd, ours];
  }

  /** Sends requests in one batch, without waiting for answers. */
  send(...requests: readonly Uint8Array[]): void {
    const { memory } = this.driver;
    const queue = this.#queue!;
    for (const request of requests) {
      const at = this.#sent++ % SLOTS;
      memory.resolve(REQUESTS + at * 64, 64, true);
      memory.bytes.set(request, memory.offset);
      queue.driver.begin();
      queue.driver.addReadable(REQUESTS + at * 64, request.length);
      queue.driver.addWritable(ANSWERS + at * 4, 4);
      queue.driver.commit();
    }
    queue.kick();
  }

  /** How many answers come, within some milliseconds each. */
  async answers(most: number, patience = 5000): Promise<number> {
    let count = 0;
    while (count < most && await this.#queue!.reap(patience)) count++;
    return count;
  }

  /** Waits until back ends owe all that answers are held back for, and sees that none comes meanwhile. */
  async held(...backEnds: readonly ScriptedBackEnd[]): Promise<void> {
    const { device } = this;
    await until(
      () =>
        device.holds &&
        backEnds.reduce((sum, { owed }) => sum + owed, 0) === device.iotlbListeners.waiting,
      "the back ends owe what answers are held back for",
    );
    assertEquals(await this.answers(1, 30), 0);
  }

  /** Sends requests one after the other and gives their statuses. */
  async request(...requests: readonly Uint8Array[]): Promise<number[]> {
    const statuses: number[] = [];
    for (const request of requests) {
      const at = this.#sent % SLOTS;
      this.send(request);
      assertEquals(await this.answers(1), 1, "the request is answered");
      this.driver.memory.resolve(ANSWERS + at * 4, 4, false);
      statuses.push(this.driver.memory.bytes[this.driver.memory.offset]);
    }
    return statuses;
  }

  /**
   * Sends requests in one batch and gives their statuses.
   *
   * @param meanwhile Is waited for before the answers are.
   */
  async batch(requests: readonly Uint8Array[], meanwhile: () => Promise<void>): Promise<number[]> {
    const first = this.#sent;
    this.send(...requests);
    await meanwhile();
    assertEquals(await this.answers(requests.length), requests.length, "all are answered");
    return requests.map((_, i) => {
      this.driver.memory.resolve(ANSWERS + ((first + i) % SLOTS) * 4, 4, false);
      return this.driver.memory.bytes[this.driver.memory.offset];
    });
  }

  /** The next fault report, as flags and address. */
  async takeFault(): Promise<readonly [number, number] | undefined> {
    const queue = this.#events!;
    queue.driver.begin();
    queue.driver.addWritable(EVENT, 24);
    queue.driver.commit();
    queue.kick();
    if (!await queue.reap(2000)) return undefined;
    const { memory } = this.driver;
    memory.resolve(EVENT, 24, false);
    const view = new DataView(memory.bytes.buffer, memory.bytes.byteOffset + memory.offset, 24);
    return [view.getUint32(4, true), Number(view.getBigUint64(16, true))];
  }

  /** Waits until the server has looked at all that was sent, and gives it and the back ends time to answer. */
  async quiet(): Promise<void> {
    // What is sent before a message of the driver's is found by the same look, or an earlier one.
    for (let i = 0; i < 3; i++) await this.driver.ask(Request.GET_QUEUE_NUM);
    await delay(40);
  }

  /** Waits until what the back end asked for so far has been served, and it has seen the answers. */
  async served(frontEnd: FrontEnd, backEnd: ScriptedBackEnd): Promise<void> {
    await backEnd.asked();
    await delivered(frontEnd);
  }

  /** Ends the server as SIGTERM does, before anything else has gone. */
  async stop(): Promise<void> {
    this.#server.stop();
    await this.#done;
  }

  /** Ends everything; throws if the IOMMU leaked something. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const each of this.#opened) each[Symbol.dispose]();
    this.driver.close();
    this.#server.stop();
    await this.#done;
    for (const listener of this.listeners) listener?.close();
    this.device.close();
    assertEquals(this.device.iotlbListeners.waiting, 0);
    await Deno.remove(this.#folder, { recursive: true });
  }
}

/** ATTACH of the endpoint. */
export function attach(domain = 1, endpoint = ENDPOINT, flags = 0): Uint8Array {
  return attachRequest(domain, endpoint, flags);
}

/** MAP of pages from `page` on to frames from `frame` on. */
export function map(page: number, frame: number, pages = 1, flags = 3, domain = 1): Uint8Array {
  const virtStart = BigInt(page) * 4096n;
  const virtEnd = virtStart + BigInt(pages) * 4096n - 1n;
  return mapRequest({ domain, virtStart, virtEnd, physStart: BigInt(frame) * 4096n, flags });
}

/** UNMAP of pages. */
export function unmap(page: number, pages = 1, domain = 1): Uint8Array {
  return unmapRequest(domain, BigInt(page) * 4096n, BigInt(page + pages) * 4096n - 1n);
}

/** What a back end is told of an UPDATE: pages to frames. */
export function update(page: number, frame: number, pages = 1, permission = 3): string {
  const [iova, size, user] = [page * 4096, pages * 4096, USER + frame * 4096];
  return `update ${iova.toString(16)}+${size.toString(16)} ${user.toString(16)} ${permission}`;
}

/** What a back end is told of an INVALIDATE; without pages of everything. */
export function invalidate(page?: number, pages = 1): string {
  if (page === undefined) return "invalidate 0+all";
  return `invalidate ${(page * 4096).toString(16)}+${(pages * 4096).toString(16)}`;
}

/** Waits until all that was sent to the back end so far is there: a question whose answer comes from there is behind it. */
async function delivered(frontEnd: FrontEnd): Promise<void> {
  await frontEnd.ask(Request.GET_QUEUE_NUM);
}

/** Waits for the next message on a connection. */
export async function next(connection: Connection): Promise<string> {
  using poll = new PollSet(1);
  const end = performance.now() + HANG_MS;
  while (performance.now() < end) {
    const result = connection.read();
    if (result === "message") return result;
    if (result !== "nothing") return "closed";
    poll.clear();
    poll.add(connection.stream.descriptor.number);
    await poll.wait(100);
  }
  return "nothing";
}

/** Waits until the front end's connection is closed from the other side. */
export async function isClosed(frontEnd: FrontEnd): Promise<boolean> {
  return await next(frontEnd.connection) === "closed";
}
