/**
 * The process that serves is killed while requests are on their way, alone and many at once, in each layout of the ring.
 * The judge is a `serve` that is never killed: every answer must be the same, and in the end every translation.
 *
 * `VIOMMU_TEST=full` kills 25 times in each layout; the normal run twice.
 */
import { assert, assertEquals } from "@std/assert";
import { delay } from "@std/async";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  statusName,
  unmapRequest,
} from "../../../device/iommu/driver_requests.ts";
import { FrontEnd, TransportFeature } from "../../../device/vhost_user/mod.ts";
import { Random, seed } from "../../guest/random.ts";
import { isLong } from "../../long_mode.ts";
import { type Served, type Session, withServe } from "../served_process.ts";
import { killWorker, withSpare } from "./supervised.ts";

const { VERSION_1, RING_PACKED, IN_ORDER } = TransportFeature;
/** Two of them are what the normal run has: the default, and the one that is most unlike it. */
const LAYOUTS = {
  "a split ring": VERSION_1,
  "a packed ring in order": VERSION_1 | RING_PACKED | IN_ORDER,
  ...(isLong
    ? {
      "a split ring in order": VERSION_1 | IN_ORDER,
      "a packed ring": VERSION_1 | RING_PACKED,
    }
    : {}),
};
const KILLS = isLong ? 10 : 2;
/** Batches of requests between two kills, and most requests of one. */
const BATCHES = 12;
const BATCH = 7;
const ENDPOINTS = [8, 16];
const DOMAINS = [1, 2];
const PAGES = 12;
const PAGE = 4096;
const OPTIONS = ["--endpoint", "8", "--endpoint", "16", "--rings"];
const ALL_RINGS = "packed,event-index,in-order,indirect";

function randomRequest(random: Random): Uint8Array<ArrayBuffer> {
  const domain = random.pick(DOMAINS);
  const first = random.below(PAGES);
  const last = Math.min(first + random.below(4), PAGES - 1);
  const [virtStart, virtEnd] = [BigInt(first * PAGE), BigInt((last + 1) * PAGE - 1)];
  switch (random.below(8)) {
    case 0:
      return attachRequest(domain, random.pick(ENDPOINTS));
    case 1:
      return random.below(3) > 0
        ? attachRequest(domain, random.pick(ENDPOINTS))
        : detachRequest(domain, random.pick(ENDPOINTS));
    case 2:
    case 3:
      return unmapRequest(domain, virtStart, virtEnd);
  }
  const physStart = BigInt((0x20 + random.below(0x80)) * PAGE);
  return mapRequest({ domain, virtStart, virtEnd, physStart, flags: random.pick([1, 2, 3]) });
}

/** Sends requests at once; `meanwhile` runs when the device was told. Returns what they were answered. */
async function sendAll(
  { queue, bytes }: Session,
  requests: readonly Uint8Array[],
  meanwhile: () => Promise<void>,
): Promise<readonly string[]> {
  const readable = (i: number) => 0x8000 + i * 64;
  const writable = (i: number) => 0x9000 + i * 16;
  const tokens = new Map<number, number>();
  requests.forEach((request, i) => {
    bytes.set(request, readable(i));
    bytes.fill(0xee, writable(i), writable(i) + 4);
    queue.driver.begin();
    queue.driver.addReadable(readable(i), request.length);
    queue.driver.addWritable(writable(i), 4);
    tokens.set(queue.driver.commit(), i);
  });
  queue.kick();
  await meanwhile();
  const answers: string[] = [];
  for (let count = 0; count < requests.length; count++) {
    assert(await queue.reap(60_000), `answer ${count} of ${requests.length} comes`);
    const i = tokens.get(queue.driver.token)!;
    const tail = bytes.slice(writable(i), writable(i) + 4);
    answers[i] = statusName(tail, queue.driver.usedLength);
  }
  return answers;
}

async function connect({ socket }: Served, acceptHigh: number): Promise<Session> {
  const frontEnd = FrontEnd.connect(socket, { acceptHigh });
  await frontEnd.negotiate();
  assertEquals(frontEnd.featuresHigh, acceptHigh, "the device offers such rings");
  const { mapping } = await frontEnd.addMemory(0, 1 << 20);
  const queue = await frontEnd.startQueue(0, { size: 16, address: 0x1000 });
  return { frontEnd, queue, bytes: new Uint8Array(mapping.buffer) };
}

/** What each endpoint reaches, but for where the tables lie. */
async function translations({ api }: Served): Promise<readonly string[]> {
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path: api } });
  const lines: string[] = [];
  for (const endpoint of ENDPOINTS) {
    for (let page = 0; page < PAGES; page++) {
      for (const access of ["r", "w"]) {
        const query = `endpoint=${endpoint}&iova=${page * PAGE}&access=${access}`;
        const response = await fetch(`http://127.0.0.1/v1/translate?${query}`, { client });
        const { path: _, ...answer } = await response.json();
        lines.push(`${query}: ${JSON.stringify(answer)}`);
      }
    }
  }
  return lines;
}

async function compare(killed: Served, unbroken: Served, acceptHigh: number): Promise<void> {
  const session = await connect(killed, acceptHigh);
  const reference = await connect(unbroken, acceptHigh);
  const random = new Random(seed() + acceptHigh);
  let [ok, total] = [0, 0];
  try {
    for (let kill = 0; kill <= KILLS; kill++) {
      const target = kill < KILLS ? await withSpare(killed.api) : undefined;
      const at = random.below(BATCHES);
      for (let batch = 0; batch < BATCHES; batch++) {
        const requests = Array.from(
          { length: 1 + random.below(BATCH) },
          () => randomRequest(random),
        );
        const wait = random.below(3);
        const answers = await sendAll(session, requests, async () => {
          if (batch !== at || target === undefined) return;
          // At once, after a turn of this event loop, or after a time in which some are answered.
          if (wait > 0) await delay(wait - 1);
          killWorker(target);
        });
        assertEquals(answers, await sendAll(reference, requests, async () => {}));
        ok += answers.filter((answer) => answer === "OK").length;
        total += answers.length;
      }
      assertEquals(await translations(killed), await translations(unbroken));
    }
    assert(ok > total / 4, `${ok} of ${total} requests succeeded`);
    assertEquals((await withSpare(killed.api)).deaths, KILLS);
  } finally {
    session.frontEnd.close();
    reference.frontEnd.close();
  }
}

for (const [name, acceptHigh] of Object.entries(LAYOUTS)) {
  Deno.test(`requests in ${name} are answered as though no process had been killed`, async () => {
    const options = [...OPTIONS, ALL_RINGS];
    await withServe(
      ["--supervise", ...options],
      (killed) =>
        withServe(options, (unbroken) => compare(killed, unbroken, acceptHigh)).then(() => {}),
    );
  });
}
