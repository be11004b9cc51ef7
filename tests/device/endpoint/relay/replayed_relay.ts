/**
 * A relayed back end as replays use it: an echo behind the relay, which gives back the bytes of each request, changed.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { until } from "../../../until.ts";
import type { DeviceFacts, Vmm } from "../../vhost_user/vmm.ts";
import {
  bytesAt,
  exchange,
  FEATURES_LOW,
  HEADER,
  LOAD,
  LOADED,
  PROTOCOL,
  type ReplayedDriver,
} from "../replayed_device.ts";
import type { ReplayedService } from "../replayed_service.ts";
import { CHANGE, type EchoBackEnd, type EchoOptions } from "./echo_back_end.ts";
import { IOVA, pattern, RelayWorld } from "./relay_world.ts";

/** VERSION_1, ACCESS_PLATFORM, RING_PACKED: a relay does not use rings in order. */
const FEATURES_HIGH = 0x7;
/** What the echo offers of its own. */
const ECHO_FEATURES = 0x3;
const CONFIG = new TextEncoder().encode("viommu");
/** Bytes of a request, which with its answer touch two pages each. */
const LENGTH = 5000;
/** The same under load. */
const LOADED_LENGTH = 500;
const LOADED_STEP = 1024;

/** A driver of the echo's queues. */
export class EchoDriver implements ReplayedDriver {
  readonly facts: DeviceFacts = {
    features: [FEATURES_LOW | ECHO_FEATURES, FEATURES_HIGH],
    protocol: PROTOCOL,
    queues: 2,
    config: CONFIG,
    ringShift: BigInt(IOVA),
  };
  readonly configChanges = true;
  #turn = 0;

  async use(vmm: Vmm, buffer: number): Promise<void> {
    const bytes = pattern(LENGTH, ++this.#turn);
    const index = this.#turn % 2;
    bytesAt(vmm, HEADER, LENGTH).set(bytes);
    await this.#request(vmm, index, HEADER, buffer + 100);
    assertEquals(bytesAt(vmm, buffer + 100, LENGTH), changed(bytes, 1));
    await this.#request(vmm, 1 - index, buffer + 100, HEADER);
    assertEquals(bytesAt(vmm, HEADER, LENGTH), changed(bytes, 2));
  }

  load(vmm: Vmm): void {
    this.#turn++;
    for (const [index, { driver }] of vmm.rings.entries()) {
      for (let i = 0; i < LOAD; i++) {
        const at = placeOf(index, i);
        bytesAt(vmm, at, LOADED_LENGTH).set(this.#loaded(index, i));
        bytesAt(vmm, at + LOADED_STEP / 2, LOADED_LENGTH).fill(0xee);
        driver.begin();
        driver.addReadable(IOVA + at, LOADED_LENGTH);
        driver.addWritable(IOVA + at + LOADED_STEP / 2, LOADED_LENGTH);
        driver.commit();
      }
      vmm.rings[index].kick();
    }
  }

  check(vmm: Vmm): void {
    for (const index of vmm.rings.keys()) {
      for (let i = 0; i < LOAD; i++) {
        const answer = bytesAt(vmm, placeOf(index, i) + LOADED_STEP / 2, LOADED_LENGTH);
        assertEquals(answer, changed(this.#loaded(index, i), 1), `request ${i} of ring ${index}`);
      }
      vmm.used[index] += LOAD * (vmm.isPacked ? 2 : 1);
    }
  }

  #loaded(index: number, i: number): Uint8Array {
    return pattern(LOADED_LENGTH, this.#turn * 1000 + index * LOAD + i);
  }

  async #request(vmm: Vmm, index: number, from: number, to: number): Promise<void> {
    const { driver } = vmm.rings[index];
    driver.begin();
    driver.addReadable(IOVA + from, LENGTH);
    driver.addWritable(IOVA + to, LENGTH);
    assertEquals(await exchange(vmm, index, 2), LENGTH);
  }
}

/** Where a request of the load is, guest-physical. */
function placeOf(index: number, i: number): number {
  return LOADED + (index * LOAD + i) * LOADED_STEP;
}

/** Bytes that have passed the echo so many times. */
function changed(bytes: Uint8Array, times: number): Uint8Array {
  return bytes.map((byte) => byte + times * CHANGE);
}

/** What the relay says of a back end that has died. */
const DEATH = "is over: the back end is gone";

/** The echo behind the relay, served. */
export class ReplayedRelay implements ReplayedService {
  readonly driver: ReplayedDriver;
  readonly world: RelayWorld = new RelayWorld();
  /** The back end that came last. */
  backEnd: EchoBackEnd | undefined;

  #deaths = 0;

  constructor(driver: ReplayedDriver = new EchoDriver()) {
    this.driver = driver;
    this.world.attach();
  }

  get complaints(): readonly string[] {
    const { warnings, relay, counters } = this.world;
    const { faults } = relay.service;
    const { violations, timeouts, inFlight } = counters;
    const sums = { faults, violations, timeouts, inFlight, pool: relay.pool.used };
    return [
      ...warnings.filter((line) => this.#deaths === 0 || !line.endsWith(DEATH)),
      ...Object.entries(sums).filter(([, count]) => count > 0).map(([name]) => name),
    ];
  }

  async open(vmm: Vmm): Promise<void> {
    const { relay, path } = this.world;
    await until(() => !relay.service.connected, "the session before has ended");
    // The back end of the machine before goes with it.
    await this.backEnd?.closed;
    vmm.open(path);
    await this.join();
  }

  /** The back end dies, and another comes. */
  async replace(): Promise<void> {
    this.#deaths++;
    await this.backEnd![Symbol.asyncDispose]();
    await this.join();
  }

  /** The back end has all requests of a load, and keeps them. */
  async holds(): Promise<void> {
    const { queues } = this.driver.facts;
    await until(() => this.backEnd!.held.length === queues * LOAD, "the back end has the load");
  }

  /** Another back end comes in place of the one before, which has gone. */
  async join(options: EchoOptions = {}): Promise<void> {
    const { featuresLow = ECHO_FEATURES, config = CONFIG.slice() } = options;
    this.backEnd = await this.world.join({ ...options, featuresLow, config });
  }

  map(first: number, last: number): void {
    this.world.map(first, last);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.world[Symbol.asyncDispose]();
  }
}
