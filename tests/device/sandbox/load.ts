/**
 * Everything that `serve` does once it is in its sandbox, driven from outside: requests of a guest, a generator of random
 * numbers, a disk, back ends that go and come back, every route of the API, endpoints added and removed.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { deadline } from "@std/async";
import { ROUTES } from "../../../device/api/routes.ts";
import { UnixListener } from "../../../device/host/mod.ts";
import { attachRequest, mapRequest, unmapRequest } from "../../../device/iommu/driver_requests.ts";
import { FrontEnd, type FrontEndQueue, TransportFeature } from "../../../device/vhost_user/mod.ts";
import { HANG_MS, until } from "../../until.ts";
import { connect, exists, send, type Served } from "../served_process.ts";

const DISK_BYTES = 1 << 20;
const MEMORY = 1 << 20;
const RING = 0x20000;
const BUFFER = 0x40000;
const STATUS = 0x60000;
const SECTOR = 512;
const OK = 0;

/** Requests of a disk (virtio 1.4, 5.2.6). */
const READ = 0;
const WRITE = 1;
const FLUSH = 4;
const GET_ID = 8;
const DISCARD = 11;
const WRITE_ZEROES = 13;

const RNG = 24;
const DISK = 40;

/** The options of `serve` for this load. Makes the image. */
export function loadOptions(folder: string): readonly string[] {
  Deno.writeFileSync(`${folder}/image`, new Uint8Array(DISK_BYTES).fill(7));
  return [
    ...["--api-access", "full"],
    ...["--endpoint-device", `rng:${RNG},socket=${folder}/rng`],
    ...["--endpoint-device", `blk:${DISK},socket=${folder}/blk,file=${folder}/image`],
    ...["--endpoint-proxy", `48,listen=${folder}/proxy,backend=${folder}/proxied`],
    ...["--endpoint-relay", `56,listen=${folder}/relay,backend=${folder}/relayed,type=blk`],
  ];
}

/** Puts the load on it; throws if anything is not served. */
export async function useEverything(served: Served): Promise<void> {
  const { folder, socket } = served;
  using iommu = await connect(socket);
  const all = { virtStart: 0n, virtEnd: BigInt(MEMORY - 1), physStart: 0n, flags: 3 };
  assertEquals(await send(iommu, attachRequest(1, RNG)), "OK");
  assertEquals(await send(iommu, attachRequest(1, DISK)), "OK");
  for (let i = 0; i < 200; i++) {
    assertEquals(await send(iommu, mapRequest({ domain: 1, ...all })), "OK");
    if (i < 199) assertEquals(await send(iommu, unmapRequest(1, 0n, all.virtEnd)), "OK");
  }
  await useRandomNumbers(`${folder}/rng`);
  await useDisk(`${folder}/blk`, `${folder}/image`);
  await useApi(served);
  for (const [kind, back] of [["relay", "relayed"], ["proxy", "proxied"]]) {
    await reconnects(`${folder}/${kind}`, `${folder}/${back}`);
  }
}

/** A front end of a device behind the IOMMU, its ring, its memory. */
async function device(path: string): Promise<[FrontEnd, FrontEndQueue, Uint8Array]> {
  const frontEnd = FrontEnd.connect(path, {
    acceptLow: ~(TransportFeature.LOG_ALL | TransportFeature.INDIRECT_DESC),
    acceptHigh: TransportFeature.VERSION_1 | TransportFeature.ACCESS_PLATFORM,
    userOffset: 0,
  });
  await frontEnd.negotiate();
  const { mapping } = await frontEnd.addMemory(0, MEMORY);
  const queue = await frontEnd.startQueue(0, { size: 16, address: RING });
  return [frontEnd, queue, new Uint8Array(mapping.buffer)];
}

async function useRandomNumbers(path: string): Promise<void> {
  const [frontEnd, queue, bytes] = await device(path);
  queue.driver.begin();
  queue.driver.addWritable(BUFFER, 256);
  queue.driver.commit();
  queue.kick();
  assert(await queue.reap());
  assert(bytes.subarray(BUFFER, BUFFER + 256).some((byte) => byte !== 0));
  frontEnd.close();
}

async function useDisk(path: string, image: string): Promise<void> {
  const [frontEnd, queue, bytes] = await device(path);
  const header = new DataView(bytes.buffer, BUFFER - 16, 16);
  async function request(type: number, sector: number, data: Uint8Array | number): Promise<void> {
    header.setUint32(0, type, true);
    header.setBigUint64(8, BigInt(sector), true);
    const { driver } = queue;
    driver.begin();
    driver.addReadable(BUFFER - 16, 16);
    if (typeof data !== "number") {
      bytes.set(data, BUFFER);
      driver.addReadable(BUFFER, data.length);
    } else if (data > 0) driver.addWritable(BUFFER, data);
    driver.addWritable(STATUS, 1);
    bytes[STATUS] = 0xff;
    driver.commit();
    queue.kick();
    assert(await queue.reap());
    assertEquals(bytes[STATUS], OK, `request ${type} of the disk`);
  }
  const range = new DataView(new ArrayBuffer(16));
  range.setBigUint64(0, 8n, true);
  range.setUint32(8, 8, true);
  await request(READ, 0, SECTOR);
  assertEquals(bytes[BUFFER], 7);
  await request(WRITE, 1, new Uint8Array(SECTOR).fill(9));
  await request(FLUSH, 0, 0);
  await request(GET_ID, 0, 20);
  await request(DISCARD, 0, new Uint8Array(range.buffer));
  await request(WRITE_ZEROES, 0, new Uint8Array(range.buffer));
  const content = await Deno.readFile(image);
  assertEquals([content[SECTOR], content[2 * SECTOR], content[8 * SECTOR]], [9, 7, 0]);
  frontEnd.close();
}

/** Asks each route, and adds and removes a disk. */
async function useApi({ folder, api }: Served): Promise<void> {
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path: api } });
  async function ask(method: string, path: string, body?: unknown): Promise<number> {
    const text = body === undefined ? {} : { body: JSON.stringify(body) };
    const answer = await fetch(`http://127.0.0.1${path}`, { client, method, ...text });
    await answer.body?.cancel();
    return answer.status;
  }
  const asked = new Set<string>();
  async function expect(status: number, method: string, path: string, body?: unknown) {
    assertEquals([path, await ask(method, path, body)], [path, status]);
    asked.add(
      `${method} ${path.replace(/\?.*/, "").replace(/endpoints\/.*/, "endpoints/{endpoint}")}`,
    );
  }
  for (const path of ["state", "mappings", "events", "version", "health", "endpoints"]) {
    await expect(200, "GET", `/v1/${path}`);
  }
  await expect(200, "GET", "/metrics");
  await expect(200, "GET", `/v1/translate?endpoint=${RNG}&iova=0x1000`);
  // Of frames, which this serve has not.
  await expect(404, "GET", "/v1/moved");
  await expect(200, "POST", "/v1/dma", { endpoint: RNG, iova: "0x1000", length: 16 });
  await Deno.writeFile(`${folder}/second`, new Uint8Array(DISK_BYTES));
  const value = `blk:64,socket=${folder}/added,file=${folder}/second`;
  await expect(200, "POST", "/v1/endpoints", { "endpoint-device": value });
  FrontEnd.connect(`${folder}/added`).close();
  await expect(200, "DELETE", "/v1/endpoints/64");
  assertEquals(await exists(`${folder}/added`), false);
  assertEquals([...asked].sort(), ROUTES.map(({ method, path }) => `${method} ${path}`).sort());
}

/** A back end that goes and comes back is connected again, while a VMM is there. */
async function reconnects(listen: string, back: string): Promise<void> {
  const frontEnd = FrontEnd.connect(listen);
  try {
    for (let i = 0; i < 2; i++) {
      using listener = UnixListener.listen(back);
      let stream: ReturnType<UnixListener["accept"]>;
      // A proxy connects when a VMM does.
      using _again = i === 0 || listen.endsWith("relay")
        ? undefined
        : closing(FrontEnd.connect(listen));
      await deadline(until(() => (stream = listener.accept()) !== undefined, back), HANG_MS);
      stream?.end();
    }
  } finally {
    frontEnd.close();
  }
}

/** Closes a front end with its block. */
function closing(frontEnd: FrontEnd): Disposable {
  return { [Symbol.dispose]: () => frontEnd.close() };
}
