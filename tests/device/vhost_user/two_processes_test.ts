/**
 * A device that moves from one process to another under a guest that runs on: state, memory and rings.
 *
 * The judge is a third process that served the whole history without a break. `VIOMMU_TEST=full` maps and looks at more
 * pages, each of which is a question to the API for every endpoint.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { concat } from "@std/bytes";
import { delay } from "@std/async";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  unmapRequest,
} from "../../../device/iommu/driver_requests.ts";
import { createPipe, type Descriptor, readNow, writeNow } from "../../../device/host/mod.ts";
import { FrontEnd, Request } from "../../../device/vhost_user/mod.ts";
import { formatNames } from "../../../pagetable/mod.ts";
import { words } from "../../bytes.ts";
import { Random, seed } from "../../guest/random.ts";
import { isLong } from "../../long_mode.ts";
import { HANG_MS } from "../../until.ts";
import { kill, send, type Served, type Session, start } from "../served_process.ts";

/** Pages that are mapped and looked at, and bytes of a page. */
const PAGES = isLong ? 48 : 8;
const PAGE = 4096;
/** Requests before and after the move: not as many as bring a packed ring of 16 back to where it began. */
const REQUESTS = isLong ? 405 : 213;
/** Domains, the last of which bypasses. */
const DOMAINS = [0, 7, 0xffff_ffff, 3];
const BYPASS_DOMAIN = 3;
const BYPASS_FLAG = 1;
/** Where the bypass byte is in the config space. */
const BYPASS_BYTE = 36;
/** Two endpoints of each format, and one that is never attached. */
const FORMATS = formatNames();
const ENDPOINTS = FORMATS.flatMap((_, i) => [i * 8, i * 8 + 1]);
const UNATTACHED = 0x1000;
const OPTIONS = [
  "--endpoint",
  UNATTACHED.toString(),
  ...FORMATS.flatMap((format, i) => ["--endpoint", `${i * 8}-${i * 8 + 1},format=${format}`]),
];
/** Bytes of guest memory. */
const MEMORY = 1 << 20;

/** A request as a guest might make it, sensible or not. */
function randomRequest(random: Random): Uint8Array<ArrayBuffer> {
  const domain = random.pick(DOMAINS);
  const endpoint = random.pick(ENDPOINTS);
  const first = random.below(PAGES);
  const last = Math.min(first + random.below(6), PAGES - 1);
  const virtStart = BigInt(first * PAGE);
  const virtEnd = BigInt((last + 1) * PAGE - 1);
  switch (random.below(8)) {
    case 0:
      return attachRequest(domain, endpoint, domain === BYPASS_DOMAIN ? BYPASS_FLAG : 0);
    case 1:
      return random.below(3) > 0
        ? attachRequest(domain, endpoint, domain === BYPASS_DOMAIN ? BYPASS_FLAG : 0)
        : detachRequest(domain, endpoint);
    case 2:
    case 3:
      return unmapRequest(domain, virtStart, virtEnd);
  }
  const physStart = BigInt((0x20 + random.below(0x80)) * PAGE);
  return mapRequest({ domain, virtStart, virtEnd, physStart, flags: random.pick([1, 2, 3, 7]) });
}

/** Sends requests, and what they were answered. */
async function sendAll(session: Session, requests: readonly Uint8Array[]): Promise<string[]> {
  const answers: string[] = [];
  for (const request of requests) answers.push(await send(session, request));
  return answers;
}

/** What every endpoint reaches, through the API: one line for each page and access. */
async function translations({ api }: Served): Promise<string[]> {
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path: api } });
  const lines: string[] = [];
  for (const endpoint of [...ENDPOINTS, UNATTACHED]) {
    for (let page = 0; page < PAGES; page++) {
      for (const access of ["r", "w"]) {
        const query = `endpoint=${endpoint}&iova=${page * PAGE}&access=${access}`;
        const response = await fetch(`http://127.0.0.1/v1/translate?${query}`, { client });
        // Where the tables themselves lie is each process's own affair.
        const { path: _, ...answer } = await response.json();
        lines.push(`${query}: ${JSON.stringify(answer)}`);
      }
    }
  }
  return lines;
}

/** The domains with their mappings, as the API tells them. */
async function mappings({ api }: Served): Promise<unknown> {
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path: api } });
  const list = [];
  const state = await (await fetch("http://127.0.0.1/v1/state", { client })).json();
  for (const { id, bypass, endpoints } of state.domains) {
    const response = await fetch(`http://127.0.0.1/v1/mappings?domain=${id}`, { client });
    list.push({ id, bypass, endpoints: endpoints.toSorted(), mappings: await response.json() });
  }
  return list.sort((a, b) => a.id - b.id);
}

/** The state that a stopped device gives away. */
async function save(frontEnd: FrontEnd): Promise<Uint8Array<ArrayBuffer>> {
  const [reader, writer] = createPipe();
  const reply = await frontEnd.ask(Request.SET_DEVICE_STATE_FD, words(0, 0), [writer]);
  assertEquals(reply.getUint32(0, true), 0x100);
  writer.close();
  const state = await readToEnd(reader);
  reader.close();
  assertEquals((await frontEnd.ask(Request.CHECK_DEVICE_STATE)).getUint32(0, true), 0);
  return state;
}

async function readToEnd(reader: Descriptor): Promise<Uint8Array<ArrayBuffer>> {
  const pieces: Uint8Array[] = [];
  const piece = new Uint8Array(new ArrayBuffer(65536));
  const end = performance.now() + HANG_MS;
  for (;;) {
    const count = readNow(reader, piece, piece.length);
    if (count === 0) return concat(pieces);
    if (count > 0) pieces.push(piece.slice(0, count));
    else await delay(1);
    assert(performance.now() < end, "the state does not come to an end");
  }
}

/** Gives a device a state. */
async function load(frontEnd: FrontEnd, state: Uint8Array<ArrayBuffer>): Promise<void> {
  const [reader, writer] = createPipe();
  const reply = await frontEnd.ask(Request.SET_DEVICE_STATE_FD, words(1, 0), [reader]);
  assertEquals(reply.getUint32(0, true), 0x100);
  reader.close();
  const end = performance.now() + HANG_MS;
  for (let at = 0; at < state.length;) {
    const rest = state.slice(at);
    const count = writeNow(writer, rest, rest.length);
    if (count > 0) at += count;
    else await delay(1);
    assert(performance.now() < end, "the state is not taken");
  }
  writer.close();
  assertEquals((await frontEnd.ask(Request.CHECK_DEVICE_STATE)).getUint32(0, true), 0);
}

/** A session whose guest memory can be handed to another process. */
interface Movable extends Session {
  readonly memory: Descriptor;
}

/** A front end with a guest and these rings. */
async function connect(served: Served, acceptHigh: number): Promise<Movable> {
  const frontEnd = FrontEnd.connect(served.socket, { acceptHigh });
  await frontEnd.negotiate();
  assertEquals(frontEnd.featuresHigh, acceptHigh, "the device offers such rings");
  const { file, mapping } = await frontEnd.addMemory(0, MEMORY);
  const queue = await frontEnd.startQueue(0, { size: 16, address: 0x1000 });
  return { frontEnd, queue, bytes: new Uint8Array(mapping.buffer), memory: file };
}

/** Stops a session, gives the device to another process, which begins where it ended, and kills the first. */
async function move(
  session: Movable,
  from: Served,
  to: Served,
  acceptHigh: number,
  memoryFirst: boolean,
): Promise<Session> {
  const { frontEnd, queue, bytes, memory } = session;
  const base = await frontEnd.stopQueue(queue);
  assertNotEquals(base, queue.freshBase);
  const state = await save(frontEnd);
  await kill(from.process);

  const next = FrontEnd.connect(to.socket, { acceptHigh });
  await next.negotiate();
  if (memoryFirst) await next.addMemory(0, MEMORY, memory);
  await load(next, state);
  if (!memoryFirst) await next.addMemory(0, MEMORY, memory);
  await next.resumeQueue(queue, base);
  return { frontEnd: next, queue, bytes };
}

async function moveBetweenProcesses(acceptHigh: number, memoryFirst: boolean): Promise<void> {
  const folders = await Promise.all([0, 1, 2].map(() => Deno.makeTempDir()));
  const starts = folders.map((folder) => start(folder, OPTIONS));
  const sessions: Session[] = [];
  try {
    const [first, second, unbroken] = await Promise.all(starts);
    const session = await connect(first, acceptHigh);
    sessions.push(session);
    const reference = await connect(unbroken, acceptHigh);
    sessions.push(reference);

    const random = new Random(seed() + acceptHigh + Number(memoryFirst));
    const before = Array.from({ length: REQUESTS }, () => randomRequest(random));
    const answers = await sendAll(session, before);
    assert(answers.filter((answer) => answer === "OK").length > REQUESTS / 4, answers.join());
    assertEquals(await sendAll(reference, before), answers);
    for (const { frontEnd } of sessions) await frontEnd.writeConfig(BYPASS_BYTE, Uint8Array.of(0));
    const reached = await translations(first);
    assert(reached.some((line) => line.includes('"format":"bypass"')), "a domain bypasses");
    const tables = FORMATS.filter((name) =>
      reached.some((line) => line.includes(`"format":"${name}"`))
    );
    assert(tables.length > FORMATS.length / 2, `most formats translate: ${tables}`);

    const moved = await move(session, first, second, acceptHigh, memoryFirst);
    sessions.push(moved);
    assertEquals(await translations(second), reached);
    assertEquals(await mappings(second), await mappings(unbroken));
    assertEquals((await moved.frontEnd.readConfig(BYPASS_BYTE, 1))[0], 0);

    const after = Array.from({ length: REQUESTS }, () => randomRequest(random));
    assertEquals(await sendAll(moved, after), await sendAll(reference, after));
    assertEquals(await translations(second), await translations(unbroken));
    assertEquals(await mappings(second), await mappings(unbroken));
  } finally {
    for (const { frontEnd } of sessions) frontEnd.close();
    for (const started of await Promise.allSettled(starts)) {
      if (started.status === "rejected") continue;
      await kill(started.value.process);
      await started.value.log;
    }
    for (const folder of folders) await Deno.remove(folder, { recursive: true });
  }
}

/** VERSION_1, and RING_PACKED with it. */
const SPLIT = 0b1;
const PACKED = 0b101;

Deno.test("a second process loads the state of a killed one and serves the same guest on", () =>
  moveBetweenProcesses(SPLIT, true));

Deno.test("the state may come before the memory, and the rings be packed ones", () =>
  moveBetweenProcesses(PACKED, false));
