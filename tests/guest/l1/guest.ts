/**
 * A VMM and its guest for `serve` in L1: the VMM binds devices of the host and gives the guest RAM, the guest's driver sends
 * requests, and devices show by their DMA what they reach.
 *
 * @module
 */
import {
  attachRequest,
  detachRequest,
  mapRequest,
  unmapRequest,
} from "../../../device/iommu/driver_requests.ts";
import { FrontEnd, type FrontEndRegion } from "../../../device/vhost_user/mod.ts";
import { send, type Session } from "../../device/served_process.ts";
import { type Edu, eduOf } from "./edu.ts";
import { passOn } from "./libc.ts";
import { HostDevice, HostIommufd } from "./vfio.ts";

/** Bytes of guest RAM, at guest-physical address 0. */
const RAM_BYTES = 1 << 20;
const CONFIG_BYTES = 40;
const CONFIG_BYPASS = 36;
const REQUEST_QUEUE = 0;
const RING = { size: 16, address: 0x1000 };
const PAGE = 4096;

/** How pages are mapped: flags of MAP. */
const FLAGS = { r: 1, w: 2, rw: 3 } as const;

/** The devices of a VMM, as it has bound and attached them before any guest runs. */
export class VmmDevices {
  readonly iommufd: HostIommufd = new HostIommufd();
  readonly devices: readonly HostDevice[];
  readonly edus: readonly Edu[];
  /** The VMM's own address space: all RAM at guest-physical addresses. */
  readonly ioas: number;

  /** Binds and attaches devices; programs that are started inherit all files. */
  constructor(paths: readonly string[]) {
    this.devices = paths.map((path) => new HostDevice(path));
    for (const device of this.devices) device.bind(this.iommufd);
    this.ioas = this.iommufd.allocate();
    for (const device of this.devices) {
      const errno = device.attach(this.ioas);
      if (errno !== 0) throw new Error(`Cannot attach as a VMM does: errno ${errno}`);
    }
    for (const { file } of [this.iommufd, ...this.devices]) passOn(file);
    this.edus = this.devices.map((device) => eduOf(device));
  }
}

/** `serve` as a child of the VMM. What it logs is printed. */
export class ServeProcess implements AsyncDisposable {
  readonly socket: string;
  readonly #process: Deno.ChildProcess;
  readonly #listening = Promise.withResolvers<void>();
  readonly #log: Promise<void>;

  /** Starts it; it has inherited the descriptors that the options name. */
  constructor(socket: string, options: readonly string[]) {
    this.socket = socket;
    const program = ["run", "--quiet", "--allow-all", "--no-config", "/programs/viommu.js"];
    const usual = ["--socket-path", socket, "--warm-up", "off", "--log-level", "debug"];
    this.#process = new Deno.Command(Deno.execPath(), {
      args: [...program, "serve", ...usual, ...options],
      stdout: "null",
      stderr: "piped",
    }).spawn();
    this.#log = this.#print();
  }

  /** Looking for the socket again and again would take the only processor from it. */
  async #print(): Promise<void> {
    let rest = "";
    for await (const text of this.#process.stderr.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        console.log(`serve: ${line}`);
        if (line.includes("Listening on")) this.#listening.resolve();
      }
    }
    this.#listening.reject(new Error(`serve has ended: ${rest}`));
  }

  /** Waits until it listens. */
  async listens(): Promise<void> {
    await this.#listening.promise;
  }

  /** A front end that is connected, as soon as it listens. */
  async connect(): Promise<FrontEnd> {
    await this.listens();
    return FrontEnd.connect(this.socket);
  }

  /** Kills it, as the kernel does when memory runs out. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#listening.promise.catch(() => {});
    try {
      this.#process.kill("SIGKILL");
    } catch (error) {
      // It has ended.
      if (!(error instanceof TypeError)) throw error;
    }
    await this.#process.status;
    await this.#log;
  }
}

/** What devices move next: never the same twice. */
let nextValue = 0x9e57_0000;

/** A guest on a front end. */
export class GuestSession implements Disposable {
  readonly frontEnd: FrontEnd;
  /** Its RAM. */
  readonly ram: FrontEndRegion;
  #session: Session;
  readonly #words: Uint32Array;

  private constructor(session: Session, ram: FrontEndRegion) {
    this.frontEnd = session.frontEnd;
    this.ram = ram;
    this.#session = session;
    this.#words = new Uint32Array(ram.mapping.buffer);
  }

  /**
   * Begins a session: RAM is in the VMM's address space and handed over, and the request queue runs.
   *
   * @param existing RAM that the guest has already.
   */
  static async begin(
    frontEnd: FrontEnd,
    { iommufd, ioas }: VmmDevices,
    existing?: FrontEndRegion,
  ): Promise<GuestSession> {
    await frontEnd.negotiate();
    const ram = await frontEnd.addMemory(0, RAM_BYTES, existing?.file);
    if (existing === undefined) {
      const errno = iommufd.map(ioas, 0n, ram.file.number, 0n, BigInt(RAM_BYTES));
      if (errno !== 0) throw new Error(`Cannot map RAM as a VMM does: errno ${errno}`);
    }
    const queue = await frontEnd.startQueue(REQUEST_QUEUE, RING);
    const bytes = new Uint8Array(ram.mapping.buffer);
    return new GuestSession({ frontEnd, queue, bytes }, ram);
  }

  /** The guest restarts, as QEMU tells of it: by a ring that is stopped and set up anew by a driver that reads the configuration. */
  async restart(): Promise<void> {
    const { frontEnd } = this;
    const { queue, bytes } = this.#session;
    await frontEnd.enableQueue(queue, false);
    await frontEnd.stopQueue(queue);
    await frontEnd.readConfig(0, CONFIG_BYTES);
    await frontEnd.setFeatures(frontEnd.featuresLow, frontEnd.featuresHigh);
    const next = await frontEnd.startQueue(REQUEST_QUEUE, RING);
    this.#session = { frontEnd, queue: next, bytes };
  }

  /** Sends a request; the name of its status. */
  async request(bytes: Uint8Array): Promise<string> {
    return await send(this.#session, bytes);
  }

  /** ATTACH; `isBypass` sets its flag. */
  async attach(domain: number, endpoint: number, isBypass = false): Promise<string> {
    return await this.request(attachRequest(domain, endpoint, isBypass ? 1 : 0));
  }

  /** DETACH. */
  async detach(domain: number, endpoint: number): Promise<string> {
    return await this.request(detachRequest(domain, endpoint));
  }

  /** MAP of I/O pages `[first, last]` to guest pages from `frame` on. */
  async map(
    domain: number,
    [first, last]: readonly [number, number],
    frame: number,
    access: "r" | "w" | "rw" = "rw",
  ): Promise<string> {
    const fields = {
      virtStart: BigInt(first) * BigInt(PAGE),
      virtEnd: BigInt(last + 1) * BigInt(PAGE) - 1n,
      physStart: BigInt(frame) * BigInt(PAGE),
    };
    return await this.request(mapRequest({ domain, ...fields, flags: FLAGS[access] }));
  }

  /** UNMAP of I/O pages `[first, last]`. */
  async unmap(domain: number, [first, last]: readonly [number, number]): Promise<string> {
    const [start, end] = [BigInt(first) * BigInt(PAGE), BigInt(last + 1) * BigInt(PAGE) - 1n];
    return await this.request(unmapRequest(domain, start, end));
  }

  /** Writes the bypass byte of the configuration space. */
  async setBypass(isOn: boolean): Promise<void> {
    await this.frontEnd.writeConfig(CONFIG_BYPASS, Uint8Array.of(isOn ? 1 : 0));
  }

  /**
   * Whether a device reads guest page `from.frame` at I/O page `from.page` and writes `to.frame` at `to.page`: whether both
   * lead there.
   */
  async moves(edu: Edu, from: Place, to: Place): Promise<boolean> {
    const value = nextValue++;
    this.#words[from.frame * (PAGE / 4)] = value;
    this.#words[to.frame * (PAGE / 4)] = 0;
    await edu.load(BigInt(from.page) * BigInt(PAGE));
    await edu.store(BigInt(to.page) * BigInt(PAGE));
    return this.#words[to.frame * (PAGE / 4)] === value;
  }

  /** Whether a device reaches RAM at guest-physical addresses, as in bypass. */
  async movesUntranslated(edu: Edu): Promise<boolean> {
    return await this.moves(edu, { page: 0x80, frame: 0x80 }, { page: 0x81, frame: 0x81 });
  }

  [Symbol.dispose](): void {
    this.frontEnd.close();
  }
}

/** An I/O page, and the guest page that it should lead to. */
export interface Place {
  readonly page: number;
  readonly frame: number;
}
