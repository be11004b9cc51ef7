/**
 * The IOMMU's own connection ends while devices behind it are served: they reach nothing that the guest has not given
 * them (virtio 1.4, 5.13.4 and 5.13.6; O4).
 */
import { assert, assertEquals } from "@std/assert";
import { attachRequest, mapRequest } from "../../../device/iommu/driver_requests.ts";
import { EndpointService, EntropyDevice, SeededRandom } from "../../../device/endpoint/mod.ts";
import { type Descriptor, UnixListener } from "../../../device/host/mod.ts";
import { IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { Log } from "../../../device/log.ts";
import { DeviceServer } from "../../../device/serving/device_server.ts";
import { FrontEnd, type FrontEndQueue, TransportFeature } from "../../../device/vhost_user/mod.ts";
import { WRITE } from "../../../pagetable/mod.ts";
import { until } from "../../until.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import { send, type Session } from "../served_process.ts";
import { attach, invalidate, map, MEMORY, ProxyWorld, update } from "./proxy/proxy_world.ts";

const ENDPOINT = 24;
/** Where the device's ring is, mapped to itself, and a buffer that is mapped to other memory. */
const RING = 0x20000;
const BUFFER = 0x30000;
const BEHIND = 0x50000;
const LENGTH = 67;
const BYPASS_FLAG = 1;
const UNKNOWN_REQUEST = 0xffff;

/** A session of the IOMMU, whose guest can have another one. */
interface IommuSession extends Session {
  readonly file: Descriptor;
}

/** The IOMMU and an entropy device of one guest, each on a socket of its own. */
class World implements AsyncDisposable {
  readonly device = new IommuDevice(DEFAULT_OPTIONS);
  readonly lines: string[] = [];
  readonly service: EndpointService;
  readonly #folder = Deno.makeTempDirSync();
  readonly #server: DeviceServer;
  readonly #done: Promise<void>;
  readonly #opened: FrontEnd[] = [];

  constructor() {
    const log = new Log("info", (line) => this.lines.push(line));
    this.service = new EndpointService({
      iommu: this.device,
      endpoint: ENDPOINT,
      device: new EntropyDevice(new SeededRandom(1)),
      listener: UnixListener.listen(`${this.#folder}/rng.sock`),
      log,
    });
    this.#server = new DeviceServer(this.device, log, 0, [this.service]);
    this.#done = this.#server.run(UnixListener.listen(`${this.#folder}/iommu.sock`));
  }

  /** A session of the IOMMU with a new guest. */
  async connect(): Promise<IommuSession> {
    const frontEnd = await this.#negotiate();
    const { file, mapping } = await frontEnd.addMemory(0, MEMORY);
    await frontEnd.readConfig(0, 40);
    const queue = await frontEnd.startQueue(0, { size: 16, address: 0x1000 });
    return { frontEnd, queue, bytes: new Uint8Array(mapping.buffer), file };
  }

  /** Another session with the guest of a session that has ended. */
  async reconnect({ queue, bytes, file }: IommuSession, base: number): Promise<IommuSession> {
    const frontEnd = await this.#negotiate();
    await frontEnd.addMemory(0, MEMORY, file);
    await frontEnd.resumeQueue(queue, base);
    return { frontEnd, queue, bytes, file };
  }

  async #negotiate(): Promise<FrontEnd> {
    const frontEnd = FrontEnd.connect(`${this.#folder}/iommu.sock`);
    this.#opened.push(frontEnd);
    await frontEnd.negotiate();
    return frontEnd;
  }

  /** A session of the entropy device, and its memory. */
  async connectDevice(): Promise<[FrontEnd, Uint8Array]> {
    const frontEnd = FrontEnd.connect(`${this.#folder}/rng.sock`, {
      acceptLow: ~(TransportFeature.LOG_ALL | TransportFeature.INDIRECT_DESC),
      acceptHigh: TransportFeature.VERSION_1 | TransportFeature.ACCESS_PLATFORM,
      userOffset: 0,
    });
    this.#opened.push(frontEnd);
    await frontEnd.negotiate();
    const { mapping } = await frontEnd.addMemory(0, MEMORY);
    return [frontEnd, new Uint8Array(mapping.buffer)];
  }

  /** How many log lines say something. */
  said(what: string): number {
    return this.lines.filter((line) => line.includes(what)).length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const frontEnd of this.#opened) frontEnd.close();
    this.#server.stop();
    await this.#done;
    this.device.close();
    await Deno.remove(this.#folder, { recursive: true });
  }
}

function mapBytes(first: number, last: number, phys: number): Uint8Array {
  const [virtStart, virtEnd, physStart] = [BigInt(first), BigInt(last), BigInt(phys)];
  return mapRequest({ domain: 1, virtStart, virtEnd, physStart, flags: 3 });
}

/** Sends a message that does not exist, so that the back end closes the connection, as after any refusal. */
function breakOff({ frontEnd }: IommuSession): void {
  frontEnd.connection.send(UNKNOWN_REQUEST, 0, new Uint8Array(0));
}

/** Asks the entropy device for bytes. */
function ask({ driver, kickEvent }: FrontEndQueue): void {
  driver.begin();
  driver.addWritable(BUFFER + 2, LENGTH);
  driver.commit();
  driver.kick();
  kickEvent.signal();
}

for (const domain of ["translated", "bypass"]) {
  Deno.test(`a device whose IOMMU's connection ends writes nothing any more (${domain} domain)`, async () => {
    await using world = new World();
    const iommu = await world.connect();
    const [device, bytes] = await world.connectDevice();
    const requests = domain === "bypass" ? [attachRequest(1, ENDPOINT, BYPASS_FLAG)] : [
      attachRequest(1, ENDPOINT),
      mapBytes(RING, RING + 0xffff, RING),
      mapBytes(BUFFER, BUFFER + 0xffff, BEHIND),
    ];
    for (const request of requests) assertEquals(await send(iommu, request), "OK");
    const queue = await device.startQueue(0, { size: 16, address: RING });
    ask(queue);
    assertEquals([await queue.reap(), queue.driver.usedLength], [true, LENGTH]);
    const before = bytes.slice(BUFFER);

    breakOff(iommu);
    await until(
      () => world.said("00:03.0, which the guest had attached, is blocked") === 1,
      "a line",
    );
    ask(queue);
    await until(() => world.said("Queue 0 stopped: ") === 1, "the ring is out of reach");
    assertEquals(bytes.slice(BUFFER), before);
    assert(world.service.faults > 0);

    // The guest goes on: it is served, and the endpoint stays blocked.
    const second = await world.reconnect(iommu, requests.length);
    assertEquals(world.said("The guest goes on with mappings"), 1);
    assertEquals(await send(second, attachRequest(7, ENDPOINT + 8)), "OK");
    await device.stopQueue(queue);
    await device.startQueue(0, { size: 16, address: RING });
    await until(() => world.said("Queue stopped: queue 0 cannot run") === 1, "out of reach");
    assertEquals(bytes.slice(BUFFER), before);
    breakOff(second);

    // A new guest: the initial bypass holds.
    await until(() => world.said("The front end is gone") === 2, "the second session is over");
    await world.connect();
    await device.stopQueue(queue);
    const last = await device.startQueue(0, { size: 16, address: RING });
    bytes.fill(0, BUFFER, BUFFER + 0x1000);
    ask(last);
    assertEquals([await last.reap(), last.driver.usedLength], [true, LENGTH]);
    assert(bytes.slice(BUFFER + 2, BUFFER + 2 + LENGTH).some((byte) => byte !== 0));
  });
}

Deno.test("a proxied back end is given nothing when the IOMMU's VMM shuts down in order, or comes back", async () => {
  await using world = await ProxyWorld.start({ bypass: true });
  const [frontEnd, backEnd] = await world.session();
  await world.request(attach(), map(10, 1));
  assertEquals(backEnd.takeTold().at(-1), update(10, 1));
  const { identityUpdates } = world.counters;
  for (const queue of world.queues) await world.driver.enableQueue(queue, false);
  for (const queue of world.queues) await world.driver.stopQueue(queue);
  world.driver.close();
  await until(() => world.lines.some((line) => line.includes("is blocked")), "a line");
  backEnd.miss(3 * 4096, WRITE);
  await world.served(frontEnd, backEnd);
  assertEquals([backEnd.takeTold(), backEnd.entries], [[invalidate()], []]);
  assertEquals([world.counters.faults, world.counters.identityUpdates], [1, identityUpdates]);

  // A back end that comes meanwhile is given nothing, either.
  frontEnd.close();
  await backEnd.closed;
  const [_, other] = await world.session();
  assertEquals([other.takeTold(), other.entries], [[], []]);
});

Deno.test("a proxied back end is given nothing when serve ends", async () => {
  const told: string[] = [];
  {
    await using world = await ProxyWorld.start({ bypass: true });
    const [, backEnd] = await world.session();
    await world.request(attach(), map(10, 1));
    backEnd.takeTold();
    await world.stop();
    await backEnd.closed;
    told.push(...backEnd.takeTold());
  }
  assertEquals(told, [invalidate()]);
});
