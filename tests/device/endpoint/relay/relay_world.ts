/**
 * An IOMMU whose driver is in this process, a relayed endpoint in the real loop, and what is on both sides of it: a front
 * end with a driver, and back ends.
 *
 * @module
 */
import type { PollSource } from "../../../../device/poll_source.ts";
import {
  attachRequest,
  mapRequest,
  unmapRequest,
} from "../../../../device/iommu/driver_requests.ts";
import {
  EndpointRelay,
  type EndpointRelayOptions,
  relayedType,
} from "../../../../device/endpoint/mod.ts";
import { UnixListener, UnixStream } from "../../../../device/host/mod.ts";
import { Log } from "../../../../device/log.ts";
import { DeviceServer } from "../../../../device/serving/device_server.ts";
import {
  FrontEnd,
  type FrontEndQueue,
  type FrontEndRegion,
  TransportFeature,
} from "../../../../device/vhost_user/mod.ts";
import { until } from "../../../until.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "../../in_process_guest.ts";
import { EchoBackEnd, type EchoOptions } from "./echo_back_end.ts";

/** What I/O virtual addresses are above the guest-physical ones. */
export const IOVA = 0x1000_0000;
/** The endpoint. */
export const ENDPOINT = 24;
/** Bytes of guest memory. */
export const MEMORY = 8 << 20;
/** Where a queue's ring is. */
export const RING = 0x1000;
const RING_STEP = 0x10000;
const PAGE = 4096;

/** How the world begins. */
export interface RelayWorldOptions extends Partial<EndpointRelayOptions> {
  /** Name of the back end's type. */
  readonly typeName?: string;
  /** Whether the back end connects to the relay. */
  readonly backEndConnects?: boolean;
  /** Whether the guest's rings are packed. */
  readonly packed?: boolean;
  /** Device features 0–31 that the guest takes, besides those of rings; all by default. */
  readonly acceptLow?: number;
  /** Makes what is served besides. */
  readonly beside?: (world: RelayWorld, log: Log) => PollSource;
}

/** All of it. */
export class RelayWorld implements AsyncDisposable {
  /** The IOMMU and its driver. */
  readonly guest: InProcessGuest;
  /** The relay. */
  readonly relay: EndpointRelay;
  /** Log lines so far. */
  readonly lines: string[] = [];
  /** Where the relay listens for a front end. */
  readonly path: string;
  /** Where back ends listen, or connect to. */
  readonly backEndPath: string;
  /** The back ends' own socket, unless they connect. */
  readonly listener: UnixListener | undefined;
  readonly #options: RelayWorldOptions;
  readonly #server: DeviceServer;
  readonly #folder: string;
  readonly #done: Promise<void>;
  readonly #opened: (Disposable | AsyncDisposable)[] = [];

  constructor(options: RelayWorldOptions = {}) {
    this.#options = options;
    this.guest = new InProcessGuest({ ...DEFAULT_OPTIONS, bypass: false });
    this.#folder = Deno.makeTempDirSync();
    this.path = `${this.#folder}/fe.sock`;
    this.backEndPath = `${this.#folder}/be.sock`;
    const { backEndConnects = false } = options;
    this.listener = backEndConnects ? undefined : UnixListener.listen(this.backEndPath);
    const log = new Log("debug", (line) => this.lines.push(line));
    this.relay = new EndpointRelay({
      iommu: this.guest.device,
      endpoint: ENDPOINT,
      listener: UnixListener.listen(this.path),
      backEnd: backEndConnects ? UnixListener.listen(this.backEndPath) : this.backEndPath,
      type: relayedType(options.typeName)!,
      bufferBytes: 4 << 20,
      patience: 5000,
      retryMs: 1,
      log,
      ...options,
    });
    const beside = options.beside === undefined ? [] : [options.beside(this, log)];
    this.#server = new DeviceServer(this.guest.device, log, 0, [this.relay, ...beside]);
    this.relay.onDue = () => this.#server.wake();
    this.#done = this.#server.run(UnixListener.listen(`${this.#folder}/iommu.sock`));
  }

  /** A world with an echo, in which the endpoint is attached and all of memory mapped. */
  static async start(
    options: RelayWorldOptions = {},
    echo: EchoOptions = {},
  ): Promise<[RelayWorld, Connected, EchoBackEnd]> {
    const world = new RelayWorld(options);
    world.attach();
    const backEnd = await world.join(echo);
    return [world, await world.connect(), backEnd];
  }

  /** What the relay has counted. */
  get counters(): EndpointRelay["counters"] {
    return this.relay.counters;
  }

  /** Warnings so far. */
  get warnings(): readonly string[] {
    return this.lines.filter((line) => line.startsWith("viommu: warn: "));
  }

  /** Attaches the endpoint to a domain and maps all of memory in it. */
  attach(domain = 1): void {
    this.guest.request(attachRequest(domain, ENDPOINT), 4);
    this.map(0, MEMORY - 1);
  }

  /** Maps guest-physical bytes `[first, last]` at their I/O virtual addresses. */
  map(first: number, last: number, flags = 3, domain = 1): void {
    const [virtStart, virtEnd] = [BigInt(first + IOVA), BigInt(last + IOVA)];
    this.guest.request(
      mapRequest({ domain, virtStart, virtEnd, physStart: BigInt(first), flags }),
      4,
    );
  }

  /** Unmaps guest-physical bytes `[first, last]` at their I/O virtual addresses. */
  unmap(first: number, last: number, domain = 1): void {
    this.guest.request(unmapRequest(domain, BigInt(first + IOVA), BigInt(last + IOVA)), 4);
  }

  /** Brings a back end to the relay. */
  async join(options: EchoOptions = {}): Promise<EchoBackEnd> {
    const backEnd = this.listener === undefined
      ? new EchoBackEnd(UnixStream.connect(this.backEndPath), options)
      : await EchoBackEnd.accept(this.listener, options);
    this.#opened.push(backEnd);
    return backEnd;
  }

  /** Connects a front end with memory. */
  async connect(): Promise<Connected> {
    const { packed = false, acceptLow = 0x00ff_ffff } = this.#options;
    const { EVENT_IDX, PROTOCOL_FEATURES, VERSION_1, ACCESS_PLATFORM, RING_PACKED } =
      TransportFeature;
    const frontEnd = FrontEnd.connect(this.path, {
      acceptLow: acceptLow | EVENT_IDX | PROTOCOL_FEATURES,
      acceptHigh: VERSION_1 | ACCESS_PLATFORM | (packed ? RING_PACKED : 0),
      iovaOffset: IOVA,
    });
    this.#opened.push({ [Symbol.dispose]: () => frontEnd.close() });
    await frontEnd.negotiate();
    return new Connected(frontEnd, await frontEnd.addMemory(0, MEMORY));
  }

  /** Waits until the relay has a back end that the guest's queues run on. */
  async backEndReady(sessions: number): Promise<void> {
    await until(() => this.counters.sessions >= sessions, `session ${sessions} has begun`);
  }

  /** The next fault report: flags and address. */
  takeFault(): readonly [number, bigint] | undefined {
    this.guest.offerEventBuffer(24);
    const event = this.guest.takeEvent(24);
    if (event === undefined) return undefined;
    const view = new DataView(event.bytes.buffer);
    return [view.getUint32(4, true), view.getBigUint64(16, true)];
  }

  /** Ends everything; throws if the IOMMU leaked something. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const each of this.#opened) {
      if (Symbol.dispose in each) each[Symbol.dispose]();
      else await each[Symbol.asyncDispose]();
    }
    this.#server.stop();
    await this.#done;
    this.listener?.close();
    this.guest.close();
    await Deno.remove(this.#folder, { recursive: true });
  }
}

/** A front end of the relay, and its driver. */
export class Connected {
  readonly frontEnd: FrontEnd;
  readonly region: FrontEndRegion;

  constructor(frontEnd: FrontEnd, region: FrontEndRegion) {
    this.frontEnd = frontEnd;
    this.region = region;
  }

  /** Guest memory as the driver sees it. */
  get bytes(): Uint8Array {
    return new Uint8Array(this.region.mapping.buffer);
  }

  /** Starts a queue. */
  async startQueue(index = 0, size = 64): Promise<FrontEndQueue> {
    return await this.frontEnd.startQueue(index, { size, address: RING + index * RING_STEP });
  }

  /** Puts a request into a ring: what is to be read at one guest address, and room at another. */
  send(
    queue: FrontEndQueue,
    [from, readable]: readonly [number, Uint8Array],
    [to, room]: readonly [number, number],
  ): number {
    this.bytes.set(readable, from);
    const { driver } = queue;
    driver.begin();
    if (readable.length > 0) addSplit(readable.length, from, driver.addReadable.bind(driver));
    if (room > 0) addSplit(room, to, driver.addWritable.bind(driver));
    const token = driver.commit();
    queue.kick();
    return token;
  }
}

/** Adds a buffer in pieces that end at odd places. */
function addSplit(
  length: number,
  address: number,
  add: (address: number, length: number) => void,
): void {
  const first = Math.min(length, PAGE - 1);
  add(address + IOVA, first);
  if (length > first) add(address + IOVA + first, length - first);
}

/** Bytes that tell where they are. */
export function pattern(length: number, seed: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  let state = seed | 1;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}
