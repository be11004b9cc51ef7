/**
 * An IOMMU, an entropy device and a disk behind it, and the front ends of all three, on memory that another process
 * scribbles over. Everything but that happens in calls, one after the other, as the loop makes them.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { attachRequest, mapRequest } from "../../device/iommu/driver_requests.ts";
import {
  BlockDevice,
  BlockDisk,
  EndpointService,
  EntropyDevice,
  HostRandom,
} from "../../device/endpoint/mod.ts";
import { PIECE_BYTES } from "../../device/endpoint/endpoint_device.ts";
import { Event, ImageFile, PollSet, UnixListener, UnixStream } from "../../device/host/mod.ts";
import { IommuDevice } from "../../device/iommu/iommu_device.ts";
import { Log } from "../../device/log.ts";
import { Turn } from "../../device/iommu/turn.ts";
import { BackEnd, Request } from "../../device/vhost_user/mod.ts";
import type { SplitDriverQueue, SplitQueue } from "../../vring/mod.ts";
import { joined, words } from "../bytes.ts";
import { DEFAULT_OPTIONS } from "./in_process_guest.ts";
import { PATIENCE, ScribbledFrontEnd } from "./scribbled_front_end.ts";
import { ENDPOINTS, FIRST_ENDPOINT_RING, IOVA, MEMORY, RING_STEP } from "./scribbled_layout.ts";
import { ScribbledMemory, type ScribbledMode } from "./scribbled_memory.ts";
import { plainMemory, plainRing } from "./plain_ring.ts";

/** Requests of the IOMMU's that one call may answer. */
const BUDGET = 256;
/** Chains that a device behind it takes at once at most: each counts for 64 bytes or more of a piece. */
const CHAINS_AT_ONCE = PIECE_BYTES / 64;
const IMAGE_BYTES = 1 << 16;
/** Where the bypass byte is in the config space. */
const BYPASS_BYTE = 36;
/** Bytes of a mapping. */
const MAPPING = 0x1_0000;
/** Where a {@linkcode PrivateDriver} has its request and the answer. */
const READABLE = 0x2000;
const WRITABLE = 0x3000;
const PRIVATE_BYTES = 0x4000;

/** What came of it. */
export class ScribbledCounts {
  sessions = 0;
  /** Requests answered, by the IOMMU, the entropy device and the disk. */
  readonly answered: number[] = [0, 0, 0];
  /** Rings that were stopped for what was in them. */
  broken = 0;
  /** Rings that could not start for what was in them or in their record. */
  refused = 0;
  /** Longest round, in milliseconds. */
  longest = 0;

  /** Requests answered and rings stopped. */
  get inputs(): number {
    return this.answered.reduce((sum, each) => sum + each, this.broken);
  }
}

/** The machine. */
export class ScribbledMachine implements Disposable {
  readonly counts: ScribbledCounts = new ScribbledCounts();
  /** Log lines of level warn and above. */
  readonly lines: string[] = [];
  readonly memory: ScribbledMemory = new ScribbledMemory();
  readonly device = new IommuDevice({ ...DEFAULT_OPTIONS, maxTableMemory: 4 << 20 });
  readonly #call = Event.create();
  readonly #log = new Log("warn", (line) => this.lines.push(line));
  readonly #poll = new PollSet();
  readonly #turn = new Turn();
  readonly #folder: string = Deno.makeTempDirSync();
  readonly #imagePath = `${this.#folder}/image`;
  readonly #services: readonly EndpointService[];
  readonly #private = new PrivateDriver(this.device);
  #backEnd: BackEnd | undefined;
  #frontEnds: ScribbledFrontEnd[] = [];

  /** A machine without sessions. */
  constructor() {
    Deno.writeFileSync(this.#imagePath, crypto.getRandomValues(new Uint8Array(IMAGE_BYTES)));
    const disk = new BlockDisk(ImageFile.open(this.#imagePath, true), false, "scribbled");
    const devices = [new EntropyDevice(new HostRandom()), new BlockDevice(disk, 1)];
    this.#services = devices.map((device, i) =>
      new EndpointService({
        iommu: this.device,
        endpoint: ENDPOINTS[i],
        device,
        listener: UnixListener.listen(this.#pathOf(device.type)),
        log: this.#log,
      })
    );
  }

  /** The bytes of the disk as they are in its file. */
  get image(): Uint8Array {
    return Deno.readFileSync(this.#imagePath);
  }

  /** Whether every session goes on. */
  get isComplete(): boolean {
    return this.#backEnd?.isOpen === true && this.#services.every(({ connected }) => connected);
  }

  /** Begins a session with each of the three. Returns whether all of them go on. */
  begin(mode: ScribbledMode): boolean {
    this.memory.mode = mode;
    this.counts.sessions++;
    const [one, other] = UnixStream.pair();
    this.#backEnd = new BackEnd(one, this.device, { log: this.#log });
    const iommu = this.#join(other);
    if (!iommu.agree() || iommu.send(Request.RESET_DEVICE, new Uint8Array(0)) === undefined) {
      return false;
    }
    // A device reset leaves the byte as it is (virtio 1.4, 5.13.4).
    this.setBypass(true);
    this.permit();
    for (const { device } of this.#services) {
      if (!this.#join(UnixStream.connect(this.#pathOf(device.type))).agree()) return false;
    }
    for (const frontEnd of this.#frontEnds) frontEnd.startRings();
    return this.isComplete;
  }

  /** Maps all of guest memory for the endpoints, if their accesses are translated. */
  permit(): void {
    if (!this.memory.mode.translated) return;
    for (const endpoint of ENDPOINTS) this.#sendPrivately(attachRequest(1, endpoint));
    const starts = [0, FIRST_ENDPOINT_RING * RING_STEP];
    for (let at = MAPPING; at < MEMORY; at += MAPPING) starts.push(at);
    starts.forEach((start, i) => {
      const virtStart = BigInt(start + IOVA);
      const virtEnd = BigInt((starts[i + 1] ?? MEMORY) + IOVA - 1);
      const physStart = BigInt(start);
      this.#sendPrivately(mapRequest({ domain: 1, virtStart, virtEnd, physStart, flags: 3 }));
    });
  }

  /** Starts every ring anew that has stopped; see {@linkcode ScribbledFrontEnd.restart}. */
  revive(fromBeginning: boolean): void {
    this.#frontEnds.forEach((frontEnd, i) => {
      for (let ring = 0; ring < frontEnd.rings; ring++) {
        const runs = i === 0
          ? this.#backEnd?.queue(ring) !== undefined
          : this.#services[i - 1].serves(ring);
        if (!runs) frontEnd.restart(ring, fromBeginning);
      }
    });
  }

  /** Writes the bypass byte of the configuration space. */
  setBypass(bypass: boolean): void {
    const byte = Uint8Array.of(bypass ? 1 : 0);
    this.#frontEnds[0].send(Request.SET_CONFIG, joined(words(BYPASS_BYTE, 1, 0), byte));
  }

  /** A round: serves all rings once, as the loop does between two looks at the rest. */
  serve(): void {
    const began = performance.now();
    this.#turn.begin(began, 1);
    if (this.device.hasWork) this.device.work(this.#turn);
    for (let i = 0; i < this.device.queueCount; i++) this.#serveIommu(i);
    for (let i = 0; i < this.#services.length; i++) this.#serveEndpoint(i);
    this.counts.longest = Math.max(this.counts.longest, performance.now() - began);
  }

  /** Switches notifications of all rings on or off. */
  setNotifications(on: boolean): void {
    for (let i = 0; i < this.device.queueCount; i++) {
      const queue = this.#backEnd?.queue(i);
      if (queue === undefined) continue;
      if (on) queue.enableNotifications();
      else queue.disableNotifications();
      if (queue.error !== 0) this.#ringFailed(i);
    }
    for (const service of this.#services) service.setNotifications(on);
  }

  /** Handles what has come on the connections. */
  look(): void {
    const poll = this.#poll;
    poll.clear();
    for (const service of this.#services) service.addTo(poll);
    poll.poll(0);
    for (const service of this.#services) service.look(poll);
    this.#backEnd?.onReadable();
  }

  /** Ends all sessions, and looks whether anything was written where nothing has a right to. */
  end(): void {
    for (const frontEnd of this.#frontEnds) {
      this.counts.refused += frontEnd.refused;
      frontEnd.close();
    }
    this.#frontEnds = [];
    for (let i = 0; i < PATIENCE && this.#isAnyOpen; i++) {
      this.serve();
      this.look();
    }
    assertEquals(this.#isAnyOpen, false, "sessions end with their connections");
    this.memory.check();
  }

  [Symbol.dispose](): void {
    for (const frontEnd of this.#frontEnds) frontEnd.close();
    this.#backEnd?.close();
    for (const service of this.#services) service.close();
    this.device.close();
    this.#poll.close();
    this.#call.close();
    this.memory[Symbol.dispose]();
    Deno.removeSync(this.#folder, { recursive: true });
  }

  get #isAnyOpen(): boolean {
    return this.#backEnd?.isOpen === true || this.#services.some(({ connected }) => connected);
  }

  #pathOf(type: string): string {
    return `${this.#folder}/${type}.sock`;
  }

  #join(stream: UnixStream): ScribbledFrontEnd {
    const session = this.#frontEnds.length;
    const frontEnd = new ScribbledFrontEnd(stream, {
      memory: this.memory,
      session,
      firstRing: session === 0 ? 0 : FIRST_ENDPOINT_RING + session - 1,
      call: this.#call,
      progress: () => {
        this.serve();
        this.look();
      },
    });
    this.#frontEnds.push(frontEnd);
    return frontEnd;
  }

  #serveIommu(index: number): void {
    const { device, counts } = this;
    const queue = this.#backEnd?.queue(index);
    if (queue === undefined) return;
    if (index === 0 ? queue.hasWork() || device.holds : device.faults.waiting > 0) {
      const served = device.service(index, queue, BUDGET, this.#turn);
      assert(served <= BUDGET, `${served} requests at once`);
      counts.answered[0] += served;
      if (served > 0) this.#backEnd!.signal(index);
    }
    if (queue.error !== 0) this.#ringFailed(index);
  }

  #ringFailed(index: number): void {
    this.counts.broken++;
    this.#backEnd!.ringFailed(index);
  }

  #serveEndpoint(index: number): void {
    const service = this.#services[index];
    const { counters } = service.device;
    const { requests, readBytes, writtenBytes } = counters;
    const ran = service.serves(0);
    service.serve();
    const answered = counters.requests - requests;
    assert(answered <= CHAINS_AT_ONCE, `${answered} requests of ${service.name} at once`);
    const moved = counters.readBytes + counters.writtenBytes - readBytes - writtenBytes;
    assert(moved <= 2 * PIECE_BYTES, `${moved} bytes of ${service.name} at once`);
    this.counts.answered[1 + index] += answered;
    if (ran && !service.serves(0)) this.counts.broken++;
  }

  #sendPrivately(request: Uint8Array): void {
    this.#private.send(request, this.#turn);
  }
}

/** A driver of the IOMMU on a ring that nothing scribbles over. */
class PrivateDriver {
  readonly #device: IommuDevice;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #driver: SplitDriverQueue;
  readonly #queue: SplitQueue;

  constructor(device: IommuDevice) {
    this.#device = device;
    const { memory, bytes } = plainMemory(PRIVATE_BYTES);
    this.#bytes = bytes;
    const { driver, queue } = plainRing(memory, 0, 8);
    this.#driver = driver;
    this.#queue = queue;
  }

  /** Sends a request, which may fail. */
  send(request: Uint8Array, turn: Turn): void {
    const driver = this.#driver;
    this.#bytes.set(request, READABLE);
    driver.begin();
    driver.addReadable(READABLE, request.length);
    driver.addWritable(WRITABLE, 4);
    driver.commit();
    driver.kick();
    for (let i = 0; !driver.reap(); i++) {
      if (i === PATIENCE) throw new Error("No answer to a request of the private driver's");
      turn.begin(performance.now(), 1);
      if (this.#device.hasWork) this.#device.work(turn);
      this.#device.service(0, this.#queue, 1, turn);
    }
  }
}
