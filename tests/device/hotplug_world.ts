/**
 * An IOMMU whose driver is in this process, with endpoints that are added and removed while the real loop serves them, by
 * hand or over the API socket.
 *
 * @module
 */
import { type ApiAccess, type ApiContext, ApiServer } from "../../device/api/mod.ts";
import { EndpointControl } from "../../device/command/endpoint_control.ts";
import { attachRequest, mapRequest } from "../../device/iommu/driver_requests.ts";
import { ServedEndpoints } from "../../device/endpoint/mod.ts";
import { UnixListener, UnixStream } from "../../device/host/mod.ts";
import { Log } from "../../device/log.ts";
import { HostDevices, type HostPlaces } from "../../device/vfio/mod.ts";
import { DeviceServer } from "../../device/serving/device_server.ts";
import {
  FrontEnd,
  type FrontEndQueue,
  Request,
  TransportFeature,
} from "../../device/vhost_user/mod.ts";
import { IOVA, MEMORY, RING } from "./endpoint/relay/relay_world.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "./in_process_guest.ts";

/** A front end of an endpoint, and guest memory as its driver sees it. */
export interface PluggedFrontEnd {
  readonly frontEnd: FrontEnd;
  readonly bytes: Uint8Array;
  /** The first queue, which runs. */
  readonly queue: FrontEndQueue;
}

/** All of it. */
export class HotplugWorld implements AsyncDisposable {
  /** The IOMMU and its driver. */
  readonly guest: InProcessGuest;
  /** What is behind the IOMMU. */
  readonly endpoints: ServedEndpoints;
  /** What adds to that by the options of `serve`. */
  readonly control: EndpointControl;
  /** What the routes of the API get. */
  readonly context: ApiContext;
  /** Log lines so far. */
  readonly lines: string[] = [];
  /** A folder for sockets and images. */
  readonly folder: string;
  readonly #api: ApiServer;
  readonly #server: DeviceServer;
  readonly #done: Promise<void>;
  readonly #opened: (Disposable | AsyncDisposable)[] = [];

  /**
   * @param access What clients of the API socket may do.
   * @param host Where devices of the host are.
   */
  constructor(access: ApiAccess = "full", host?: HostPlaces) {
    this.guest = new InProcessGuest({
      ...DEFAULT_OPTIONS,
      endpoints: [{ first: 0, last: 0x1ff, format: "vtd-ss" }],
      bypass: false,
    });
    this.folder = Deno.makeTempDirSync();
    const log = new Log("debug", (line) => this.lines.push(line));
    const endpoints = new ServedEndpoints(log);
    const iommu = this.guest.device;
    this.endpoints = endpoints;
    const otherSockets = [this.path("iommu"), this.path("api")];
    const hostDevices = new HostDevices(log, host);
    this.control = new EndpointControl({
      endpoints,
      iommu,
      log,
      access: {},
      hostDevices,
      otherSockets,
    });
    this.context = {
      device: iommu,
      get services() {
        return endpoints.services;
      },
      get proxies() {
        return endpoints.proxies;
      },
      get relays() {
        return endpoints.relays;
      },
      get hostDevices() {
        return endpoints.hostDevices;
      },
      changes: this.control,
      version: "0",
      connected: false,
      access,
    };
    this.#api = new ApiServer(UnixListener.listen(this.path("api")), this.context, log);
    this.#server = new DeviceServer(iommu, log, 0, [endpoints, this.#api]);
    this.#server.onFrontEnd = (stream) => endpoints.frontEndChanged(stream);
    this.#done = this.#server.run(UnixListener.listen(this.path("iommu")));
  }

  /** Warnings so far. */
  get warnings(): readonly string[] {
    return this.lines.filter((line) => line.startsWith("viommu: warn: "));
  }

  /** Connections of API clients. */
  get connections(): number {
    return this.#api.connections;
  }

  /** How many files are in the folder, sockets included. */
  get fileCount(): number {
    return [...Deno.readDirSync(this.folder)].length;
  }

  /** A path in the folder. */
  path(name: string): string {
    return `${this.folder}/${name}`;
  }

  /** Makes an image of zeros. */
  image(name: string, size = 1 << 20): string {
    Deno.writeFileSync(this.path(name), new Uint8Array(size));
    return this.path(name);
  }

  /** Attaches an endpoint to a domain; maps all of memory in it where it is new. */
  attach(endpoint: number, domain = endpoint): void {
    this.guest.request(attachRequest(domain, endpoint), 4);
    const [virtStart, virtEnd] = [BigInt(IOVA), BigInt(IOVA + MEMORY - 1)];
    this.guest.request(mapRequest({ domain, virtStart, virtEnd, physStart: 0n, flags: 3 }), 4);
  }

  /** Connects a front end to a socket in the folder, with memory and the first queue. */
  async plug(name: string): Promise<PluggedFrontEnd> {
    const frontEnd = FrontEnd.connect(this.path(name), {
      acceptLow: ~(TransportFeature.LOG_ALL | TransportFeature.INDIRECT_DESC),
      acceptHigh: TransportFeature.VERSION_1 | TransportFeature.ACCESS_PLATFORM,
      iovaOffset: IOVA,
    });
    this.owns({ [Symbol.dispose]: () => frontEnd.close() });
    await frontEnd.negotiate();
    const { mapping } = await frontEnd.addMemory(0, MEMORY);
    const queue = await frontEnd.startQueue(0, { size: 64, address: RING });
    return { frontEnd, bytes: new Uint8Array(mapping.buffer), queue };
  }

  /** Connects a front end as QEMU does, with a channel and memory, and no queue. */
  async plugBare(name: string): Promise<FrontEnd> {
    const frontEnd = FrontEnd.connect(this.path(name), {
      acceptHigh: TransportFeature.VERSION_1 | TransportFeature.ACCESS_PLATFORM,
    });
    this.owns({ [Symbol.dispose]: () => frontEnd.close() });
    await frontEnd.negotiate();
    const [ours, theirs] = UnixStream.pair();
    this.owns(ours);
    await frontEnd.tell(Request.SET_BACKEND_REQ_FD, new Uint8Array(0), [theirs.descriptor]);
    theirs.close();
    await frontEnd.addMemory(0, MEMORY);
    return frontEnd;
  }

  /** Disposes of something with the world, before its own parts. */
  owns(thing: Disposable | AsyncDisposable): void {
    this.#opened.push(thing);
  }

  /** Ends the server as SIGTERM does. */
  async stop(): Promise<void> {
    this.#server.stop();
    await this.#done;
  }

  /** Ends everything; throws if the IOMMU leaked something. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const each of this.#opened) {
      if (Symbol.dispose in each) each[Symbol.dispose]();
      else await each[Symbol.asyncDispose]();
    }
    await this.stop();
    this.guest.close();
    await Deno.remove(this.folder, { recursive: true });
  }
}
