/**
 * An IOMMU on a socket, and the guest of a replayed VMM that uses it: what the guest has mapped is known, and every step of
 * a replay ends with a look at whether the device knows the same.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { attachRequest, mapRequest, unmapRequest } from "../../../device/iommu/driver_requests.ts";
import { UnixListener } from "../../../device/host/mod.ts";
import { IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { Log } from "../../../device/log.ts";
import { DeviceServer } from "../../../device/serving/device_server.ts";
import { READ } from "../../../pagetable/mod.ts";
import { until } from "../../until.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import type { DeviceFacts, Vmm } from "./vmm.ts";

/** The endpoint that the guest attaches, and its domain. */
const ENDPOINT = 24;
const DOMAIN = 1;
/** Where the guest builds requests and gets answers. */
const REQUESTS = 0x40000;
const ANSWERS = 0x48000;
const EVENT = 0x4c000;
const LOADED = 0x50000;
const NOENT = 6;

/** What the device of {@linkcode IommuWorld} answers (virtio 1.4, 5.13.3, 5.13.4 and 6; vhost-user.rst). */
export const IOMMU_FACTS: DeviceFacts = {
  // INPUT_RANGE, DOMAIN_RANGE, MAP_UNMAP, PROBE, MMIO, BYPASS_CONFIG; LOG_ALL, INDIRECT, EVENT_IDX, PROTOCOL_FEATURES;
  // VERSION_1, RING_PACKED, IN_ORDER, NOTIFICATION_DATA.
  features: [0x7400_0077, 0x4d],
  // MQ, LOG_SHMFD, REPLY_ACK, BACKEND_REQ, CONFIG, INFLIGHT_SHMFD, RESET_DEVICE, INBAND, MEM_SLOTS, STATUS, DEVICE_STATE.
  protocol: 0x9_f22b,
  queues: 2,
  // Pages of 4 KiB, 2 MiB, 1 GiB; IOVAs of 48 bits; any domain; 24 bytes to probe, one region; no bypass.
  // deno-fmt-ignore
  config: Uint8Array.of(
    0x00, 0x10, 0x20, 0x40, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0,
    0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
    24, 0, 0, 0, 0, 0, 0, 0,
  ),
};

/** A device on a socket, as one process serves it. */
export class IommuWorld implements AsyncDisposable {
  readonly device: IommuDevice;
  readonly path: string;
  /** Log lines so far. */
  readonly lines: string[] = [];
  readonly #server: DeviceServer;
  readonly #folder: string = Deno.makeTempDirSync();
  readonly #done: Promise<void>;

  constructor() {
    this.device = new IommuDevice({ ...DEFAULT_OPTIONS, bypass: false });
    this.path = `${this.#folder}/iommu.sock`;
    this.#server = new DeviceServer(
      this.device,
      new Log("debug", (line) => this.lines.push(line)),
      0,
    );
    this.#done = this.#server.run(UnixListener.listen(this.path));
  }

  /** Warnings so far. */
  get warnings(): readonly string[] {
    return this.lines.filter((line) => line.startsWith("viommu: warn: "));
  }

  /** Waits until the front end that has gone is gone for the device, too. */
  async vacant(): Promise<void> {
    await until(() => !this.#server.connected, "the device has seen the connection end");
  }

  /** Ends everything; throws if the device leaked something. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.stop();
    await this.#done;
    this.device.close();
    await Deno.remove(this.#folder, { recursive: true });
  }
}

/** The guest. */
export class ReplayedGuest {
  /** Frames by page, as the guest mapped them. */
  mapped: Map<number, number> = new Map();
  readonly #vmm: Vmm;
  #page = 0x100;
  #frame = 0x40;

  constructor(vmm: Vmm) {
    this.#vmm = vmm;
  }

  /** A driver begins and attaches the endpoint: nothing is mapped yet. */
  async boot(): Promise<void> {
    this.mapped = new Map();
    await this.request(attachRequest(DOMAIN, ENDPOINT), 0);
  }

  /** Sends a request and checks its status. */
  async request(bytes: Uint8Array, status: number): Promise<void> {
    const { memory, rings, used } = this.#vmm;
    const { driver } = rings[0];
    memory.resolve(REQUESTS, bytes.length, true);
    memory.bytes.set(bytes, memory.offset);
    memory.resolve(ANSWERS, 4, true);
    memory.bytes.fill(0xee, memory.offset, memory.offset + 4);
    driver.begin();
    driver.addReadable(REQUESTS, bytes.length);
    driver.addWritable(ANSWERS, 4);
    driver.commit();
    rings[0].kick();
    assertEquals(await rings[0].reap(), true, `${this.#vmm.habits.name}: the request is answered`);
    // A split ring counts chains, a packed one descriptors.
    used[0] += this.#vmm.isPacked ? 2 : 1;
    memory.resolve(ANSWERS, 4, false);
    const answer = [...memory.bytes.slice(memory.offset, memory.offset + 4)];
    assertEquals(answer, [status, 0, 0, 0]);
  }

  /** Maps a page to a frame. */
  async map(page: number, frame: number): Promise<void> {
    const virtStart = BigInt(page) * 4096n;
    const fields = { domain: DOMAIN, virtStart, virtEnd: virtStart + 4095n, flags: 3 };
    await this.request(mapRequest({ ...fields, physStart: BigInt(frame) * 4096n }), 0);
    this.mapped.set(page, frame);
  }

  /** Unmaps a page. */
  async unmap(page: number): Promise<void> {
    const virtStart = BigInt(page) * 4096n;
    await this.request(unmapRequest(DOMAIN, virtStart, virtStart + 4095n), 0);
    this.mapped.delete(page);
  }

  /** The guest maps and unmaps, the device answers, and both have the same mappings. */
  async works(device: IommuDevice, frame = this.#frame++): Promise<void> {
    const page = this.#page++;
    await this.map(page, frame);
    this.check(device);
    if (this.mapped.size <= 3) return;
    const [oldest] = this.mapped.keys();
    await this.unmap(oldest);
    this.check(device);
    assertEquals(device.walk(ENDPOINT, oldest, READ).ok, false);
  }

  /** The device translates what the guest has mapped, and nothing else. */
  check(device: IommuDevice): void {
    const first = this.#page - 8;
    for (let page = first; page < first + 16; page++) {
      const walk = device.walk(ENDPOINT, page, READ);
      const frame = walk.ok ? walk.frame : undefined;
      assertEquals(frame, this.mapped.get(page), `${this.#vmm.habits.name}: page ${page}`);
    }
    for (const [page, frame] of this.mapped) {
      const walk = device.walk(ENDPOINT, page, READ);
      assertEquals([walk.ok, walk.frame], [true, frame]);
    }
  }

  /** Many requests at once: MAPs whose answers are not waited for. */
  load(count: number): void {
    const { memory, rings } = this.#vmm;
    for (let i = 0; i < count; i++) {
      const page = this.#page++;
      const virtStart = BigInt(page) * 4096n;
      const physStart = BigInt(this.#frame) * 4096n;
      const fields = { domain: DOMAIN, virtStart, virtEnd: virtStart + 4095n, physStart, flags: 3 };
      this.mapped.set(page, this.#frame++);
      const bytes = mapRequest(fields);
      memory.resolve(LOADED + i * 64, bytes.length, true);
      memory.bytes.set(bytes, memory.offset);
      memory.resolve(LOADED + 0x2000 + i * 4, 4, true);
      memory.bytes.fill(0xee, memory.offset, memory.offset + 4);
      rings[0].driver.begin();
      rings[0].driver.addReadable(LOADED + i * 64, bytes.length);
      rings[0].driver.addWritable(LOADED + 0x2000 + i * 4, 4);
      rings[0].driver.commit();
    }
    rings[0].kick();
  }

  /** Waits for the answers to {@linkcode load}: each once, each good. */
  async loaded(count: number): Promise<void> {
    const { memory, rings, used, isPacked } = this.#vmm;
    const tokens = new Set<number>();
    for (let i = 0; i < count; i++) {
      assertEquals(await rings[0].reap(), true, `${this.#vmm.habits.name}: answer ${i}`);
      tokens.add(rings[0].driver.token);
    }
    assertEquals([tokens.size, rings[0].driver.inFlight], [count, 0]);
    memory.resolve(LOADED + 0x2000, count * 4, false);
    const answers = memory.bytes.slice(memory.offset, memory.offset + count * 4);
    assertEquals(answers, new Uint8Array(count * 4));
    used[0] += count * (isPacked ? 2 : 1);
  }

  /** The guest has gone on where the device has not: nothing of it translates, and what it gives back is not there. */
  async isForgotten(device: IommuDevice): Promise<void> {
    const before = [...this.mapped.keys()];
    this.mapped = new Map();
    this.check(device);
    for (const page of before) {
      const virtStart = BigInt(page) * 4096n;
      await this.request(unmapRequest(DOMAIN, virtStart, virtStart + 4095n), NOENT);
    }
    this.check(device);
  }

  /** An access that is refused is reported on the event queue. */
  async hearsOfFault(device: IommuDevice): Promise<void> {
    const { memory, rings, used } = this.#vmm;
    const [, events] = rings;
    events.driver.begin();
    events.driver.addWritable(EVENT, 24);
    events.driver.commit();
    events.kick();
    device.refused(ENDPOINT, 0x999, 0x123, READ);
    assertEquals(await events.reap(), true, `${this.#vmm.habits.name}: the fault is reported`);
    used[1]++;
    memory.resolve(EVENT, 24, false);
    const view = new DataView(memory.bytes.buffer, memory.bytes.byteOffset + memory.offset, 24);
    // F_READ and F_ADDRESS, the endpoint, the address (virtio 1.4, 5.13.6.9).
    assertEquals([view.getUint32(4, true), view.getUint32(8, true), view.getBigUint64(16, true)], [
      0x101,
      ENDPOINT,
      0x99_9123n,
    ]);
  }
}
