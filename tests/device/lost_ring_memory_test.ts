/**
 * Memory that goes and comes back while the guest's requests and the device's reports are under way: any part of
 * either ring, indirect tables, buffers. Each request is served once and answered once, each report delivered once,
 * and no ring error stays silent.
 */
import { assert, assertEquals } from "@std/assert";
import { delay } from "@std/async";
import fc from "fast-check";
import { attachRequest, mapRequest } from "../../device/iommu/driver_requests.ts";
import { UnixListener } from "../../device/host/mod.ts";
import { IommuDevice } from "../../device/iommu/iommu_device.ts";
import { Log } from "../../device/log.ts";
import { DeviceServer } from "../../device/serving/device_server.ts";
import {
  FrontEnd,
  type FrontEndQueue,
  type FrontEndRegion,
  TransportFeature,
} from "../../device/vhost_user/mod.ts";
import { READ } from "../../pagetable/mod.ts";
import { until } from "../until.ts";
import { runs } from "../vring/ring_fixture.ts";
import { temporaryPath } from "./host/host_state.ts";
import { DEFAULT_OPTIONS } from "./in_process_guest.ts";
import { keepRecord } from "./inflight_record.ts";

const ENDPOINT = 24;
const SIZE = 256;
const EVENT_RING = 0x10000;
const EVENT_BUFFERS = 0x12000;
const REQUESTS = 0x20000;
const ANSWERS = 0x28000;
const END = 0x30000;
const REPORT = 24;

interface RingKind {
  readonly packed: boolean;
  readonly inOrder: boolean;
  readonly eventIndex: boolean;
  readonly record: boolean;
}

/**
 * Where memory is cut: each part of the request ring, its indirect tables, the event ring, and the three kinds of
 * buffers have a region of their own.
 */
function cuts(packed: boolean): readonly number[] {
  const ring = packed ? [0, 16 * SIZE, 16 * SIZE + 16] : [0, 16 * SIZE, 4616, 6672];
  return [...ring, EVENT_RING, EVENT_BUFFERS, REQUESTS, ANSWERS];
}

/** A served device and its driver in the same process. */
class World implements AsyncDisposable {
  readonly device = new IommuDevice({ ...DEFAULT_OPTIONS, bypass: false });
  readonly lines: string[] = [];
  readonly frontEnd: FrontEnd;
  readonly regions: FrontEndRegion[] = [];
  queue!: FrontEndQueue;
  events!: FrontEndQueue;
  readonly #server: DeviceServer;
  readonly #done: Promise<void>;
  /** Requests sent. */
  sent = 0;
  /** Requests that cannot have met missing memory, by token; the others may have. */
  readonly #untouched = new Map<number, boolean>();
  /** Event buffers offered, and reports found in them. */
  offered = 0;
  reports = 0;
  emptyReports = 0;
  readonly #missing = new Set<FrontEndRegion>();
  readonly #seen = [0, 0];

  private constructor({ packed, inOrder, eventIndex }: RingKind) {
    // No line is left out: by this clock they are far apart.
    let now = 0;
    const log = new Log("warn", (line) => this.lines.push(line), () => now += 10_000);
    const path = temporaryPath();
    this.#server = new DeviceServer(this.device, log, 200);
    this.#done = this.#server.run(UnixListener.listen(path));
    this.frontEnd = FrontEnd.connect(path, {
      acceptLow: ~(TransportFeature.LOG_ALL | (eventIndex ? 0 : TransportFeature.EVENT_IDX)),
      acceptHigh: TransportFeature.VERSION_1 | (packed ? TransportFeature.RING_PACKED : 0) |
        (inOrder ? TransportFeature.IN_ORDER : 0),
    });
  }

  static async start(kind: RingKind): Promise<World> {
    const world = new World(kind);
    const { frontEnd } = world;
    await frontEnd.negotiate();
    const starts = cuts(kind.packed);
    for (let i = 0; i < starts.length; i++) {
      const end = starts[i + 1] ?? END;
      world.regions.push(await frontEnd.addMemory(starts[i], end - starts[i]));
    }
    if (kind.record) await keepRecord(frontEnd, 2, SIZE);
    world.queue = await frontEnd.startQueue(0, { size: SIZE, address: 0 });
    world.events = await frontEnd.startQueue(1, { size: 64, address: EVENT_RING });
    world.send(attachRequest(1, ENDPOINT), false);
    await until(() => world.reap() === 1, "the endpoint is attached");
    return world;
  }

  send(request: Uint8Array, indirect: boolean): void {
    const { memory } = this.frontEnd;
    const at = this.sent % SIZE;
    memory.resolve(REQUESTS + at * 64, 64, true);
    memory.bytes.set(request, memory.offset);
    const { driver } = this.queue;
    driver.begin();
    driver.addReadable(REQUESTS + at * 64, request.length);
    driver.addWritable(ANSWERS + at * 4, 4);
    const token = driver.commit(indirect);
    if (token < 0) return;
    this.sent++;
    this.#untouched.set(token, this.#missing.size === 0);
    this.queue.kick();
  }

  /** Sends a MAP of a page that nothing is mapped at: served twice, it would be refused. */
  map(indirect: boolean): void {
    const virtStart = BigInt(this.sent) * 4096n;
    const virtEnd = virtStart + 4095n;
    this.send(
      mapRequest({ domain: 1, virtStart, virtEnd, physStart: 0x8000_0000n, flags: 3 }),
      indirect,
    );
  }

  /** Takes the answers that are there. Returns how many. */
  reap(): number {
    const { driver } = this.queue;
    let count = 0;
    // The driver throws at an answer to what is not in flight.
    while (driver.reap()) {
      count++;
      const untouched = this.#untouched.get(driver.token);
      if (untouched === true) assertEquals(driver.usedLength, 4);
      else assert(driver.usedLength === 0 || driver.usedLength === 4);
    }
    return count;
  }

  /** Gives the device buffers for reports, and takes back those that it used. */
  offerEvents(count: number): void {
    const { driver } = this.events;
    for (let i = 0; i < count; i++) {
      driver.begin();
      driver.addWritable(EVENT_BUFFERS + (this.offered % 64) * REPORT, REPORT);
      if (driver.commit(false) < 0) break;
      this.offered++;
    }
    this.events.kick();
    this.takeReports();
  }

  takeReports(): void {
    const { driver } = this.events;
    while (driver.reap()) {
      if (driver.usedLength === REPORT) this.reports++;
      else this.emptyReports++;
    }
  }

  /** Takes a region away. A ring that it is a part of is reported by then, unless it has been before. */
  async withdraw(index: number): Promise<void> {
    const region = this.regions[index % this.regions.length];
    if (this.#missing.has(region)) return;
    this.#missing.add(region);
    for (const token of this.#untouched.keys()) this.#untouched.set(token, false);
    const ring = this.ringOf(region);
    const isKnown = ring !== undefined && this.isLost(ring);
    await this.frontEnd.withdrawMemory(region);
    const told = this.checkErrors();
    if (ring !== undefined && !isKnown) assertEquals(told[ring], true, "the loss is told");
  }

  async giveBack(index: number): Promise<void> {
    const region = this.regions[index % this.regions.length];
    if (!this.#missing.delete(region)) return;
    await this.frontEnd.returnMemory(region);
  }

  /** Which ring cannot be without a region, if any: indirect tables and buffers are missed only by what is in them. */
  ringOf(region: FrontEndRegion): number | undefined {
    const { guestAddress } = region.region;
    if (guestAddress === EVENT_RING) return 1;
    const { driver } = this.queue;
    return guestAddress <= driver.deviceArea ? 0 : undefined;
  }

  isLost(ring: number): boolean {
    return [...this.#missing].some((each) => this.ringOf(each) === ring) &&
      this.lines.some((line) => line.includes(`Queue ${ring} stopped`));
  }

  /** Every error of a ring is in the log and on its event, or in neither. Returns for which ring there was any. */
  checkErrors(): boolean[] {
    return [this.queue, this.events].map(({ errorEvent }, ring) => {
      const count = this.lines.filter((line) => line.includes(`Queue ${ring} stopped`)).length;
      const isNew = count > this.#seen[ring];
      this.#seen[ring] = count;
      assertEquals(errorEvent.drain(), isNew, `queue ${ring}: log and event agree`);
      return isNew;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.frontEnd.close();
    this.#server.stop();
    await this.#done;
    this.device.close();
  }
}

type Step =
  | { readonly do: "map"; readonly count: number; readonly indirect: boolean }
  | { readonly do: "fault" | "offer"; readonly count: number }
  | { readonly do: "withdraw" | "return"; readonly region: number }
  | { readonly do: "turn" };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("map" as const),
      count: fc.integer({ min: 1, max: 6 }),
      indirect: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constantFrom("fault" as const, "offer"),
      count: fc.integer({ min: 1, max: 4 }),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constantFrom("withdraw" as const, "return"), region: fc.nat(7) }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("turn" as const) }) },
);

Deno.test("whatever memory goes and comes back, each request is served once and no ring error is silent", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        packed: fc.boolean(),
        inOrder: fc.boolean(),
        eventIndex: fc.boolean(),
        record: fc.boolean(),
      }),
      fc.array(step, { minLength: 10, maxLength: 50 }),
      async (kind, steps) => {
        await using world = await World.start(kind);
        const { device } = world;
        let answered = 1;
        let faults = 0;
        for (const step of steps) {
          switch (step.do) {
            case "map":
              for (let i = 0; i < step.count; i++) world.map(step.indirect);
              break;
            case "fault":
              // No more than wait for a buffer: those beyond are dropped.
              for (let i = 0; i < step.count && faults < 64; i++) {
                device.refused(ENDPOINT, faults, 0, READ);
                faults++;
              }
              break;
            case "offer":
              world.offerEvents(step.count);
              break;
            case "withdraw":
              await world.withdraw(step.region);
              break;
            case "return":
              await world.giveBack(step.region);
              break;
            case "turn":
              await delay(0);
              break;
          }
          answered += world.reap();
          world.takeReports();
          world.checkErrors();
        }
        for (let i = 0; i < world.regions.length; i++) await world.giveBack(i);
        await until(() => (answered += world.reap()) >= world.sent, "every request is answered");
        const { dropped } = device.faults;
        await until(() => {
          world.offerEvents(4);
          return world.reports + world.emptyReports >= faults;
        }, "every report is delivered");
        assertEquals(device.faults.dropped, dropped);
        await delay(1);
        assertEquals(answered + world.reap(), world.sent);
        assertEquals(world.queue.driver.inFlight, 0);
        assertEquals(device.requests.counts.reduce((sum, count) => sum + count, 0), world.sent);
        assertEquals([device.faults.reported, device.faults.dropped], [
          world.reports,
          world.emptyReports,
        ]);
        world.checkErrors();
        // As a guest that never lost anything.
        world.map(true);
        await until(() => world.reap() === 1, "the ring goes on");
      },
    ),
    { numRuns: runs(25) },
  );
});
