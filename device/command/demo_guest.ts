/**
 * The second process of the demo: plays VMM and guest driver, over the real socket and real shared memory.
 *
 * It takes orders from the demo, one JSON value a line on standard input, and answers each with one line on
 * standard output. Not meant to be typed.
 */
import { FrontEnd, type FrontEndQueue } from "../vhost_user/mod.ts";
import { EVENT_QUEUE, READABLE_SIZE_MAX, REQUEST_QUEUE, T_MAP, T_UNMAP } from "../iommu/wire.ts";
import { mapRequest, unmapRequest } from "../iommu/driver_requests.ts";
import type { Command } from "./command.ts";

/** Bytes of guest memory, from guest address 0. */
export const DEMO_MEMORY = 16 << 20;
/** Entries of the request ring. */
const RING_SIZE = 256;
/** Where rings and buffers lie in guest memory. */
const REQUEST_RING = 0x10000;
const EVENT_RING = 0x20000;
const BUFFERS = 0x40000;
/** Bytes of guest memory for one request: its readable part, then its writable part. */
const SLOT = 1024;
/** Where the writable part of a slot begins. */
const WRITABLE = 128;
/** Milliseconds that a measurement takes at most. */
const PATIENCE = 700;
/** Requests that a ring holds, at two descriptors each. */
const BATCH = RING_SIZE / 2;

/** What the demo asks for. */
export type DemoOrder =
  | { readonly request: readonly number[]; readonly writable: number }
  | { readonly pairs: number; readonly domain: number; readonly batch: number };

/** What it answers. */
export type DemoAnswer =
  | { readonly length: number; readonly bytes: readonly number[] }
  | DemoTimes;

/** Microseconds that a request took. */
export interface DemoTimes {
  readonly least: number;
  readonly median: number;
  readonly p99: number;
  /** How many were timed. */
  readonly requests: number;
}

/** The guest's side of the demo. */
export const demoGuest: Command = {
  name: "demo-guest",
  summary: "the second process of the demo",
  usage: ["SOCKET"],
  description: "The second process of the demo, started by it.",
  options: [],
  operand: "SOCKET",
  async run({ operand: socket }) {
    const frontEnd = FrontEnd.connect(socket);
    await frontEnd.negotiate();
    const memory = await frontEnd.addMemory(0, DEMO_MEMORY);
    const bytes = new Uint8Array(memory.mapping.buffer);
    const requests = await frontEnd.startQueue(REQUEST_QUEUE, {
      size: RING_SIZE,
      address: REQUEST_RING,
    });
    await frontEnd.startQueue(EVENT_QUEUE, { size: 64, address: EVENT_RING });
    console.log(JSON.stringify({ ready: true }));
    for await (const line of lines(Deno.stdin.readable)) {
      const order: DemoOrder = JSON.parse(line);
      const answer = "request" in order
        ? await serveRequest(order.request, order.writable, requests, bytes)
        : await servePairs(order, requests, bytes);
      console.log(JSON.stringify(answer));
    }
    frontEnd.close();
    return 0;
  },
};

/** Sends one request and waits for its answer. */
async function serveRequest(
  readable: readonly number[],
  writable: number,
  queue: FrontEndQueue,
  bytes: Uint8Array,
): Promise<DemoAnswer> {
  bytes.set(readable, BUFFERS);
  bytes.fill(0, BUFFERS + WRITABLE, BUFFERS + WRITABLE + writable);
  submit(queue, 0, readable.length, writable);
  queue.kick();
  if (!await queue.reap()) throw new Error("Cannot go on: the device does not answer");
  const from = BUFFERS + WRITABLE;
  return {
    length: queue.driver.usedLength,
    bytes: [...bytes.subarray(from, from + writable)],
  };
}

/**
 * Maps and unmaps single pages, `batch` requests a notification, and measures the time from a notification to the last
 * answer. Ends early on a machine so busy that it would take longer than {@linkcode PATIENCE}.
 */
async function servePairs(
  order: { readonly pairs: number; readonly domain: number; readonly batch: number },
  queue: FrontEndQueue,
  bytes: Uint8Array,
): Promise<DemoTimes> {
  const begin = performance.now();
  const batch = Math.min(order.batch, BATCH);
  const times: number[] = [];
  for (let done = 0; done < order.pairs && performance.now() - begin < PATIENCE; done += batch) {
    for (const type of [T_MAP, T_UNMAP]) {
      for (let slot = 0; slot < batch; slot++) {
        const virtStart = 0x40000000n + BigInt(slot) * 4096n;
        const virtEnd = virtStart + 4095n;
        const readable = type === T_MAP
          ? mapRequest({ domain: order.domain, virtStart, virtEnd, physStart: 0x1000n, flags: 3 })
          : unmapRequest(order.domain, virtStart, virtEnd);
        bytes.set(readable, BUFFERS + slot * SLOT);
        submit(queue, slot, readable.length, 4);
      }
      const start = performance.now();
      queue.kick();
      for (let slot = 0; slot < batch; slot++) await answered(queue);
      times.push((performance.now() - start) * 1000 / batch);
    }
  }
  times.sort((one, other) => one - other);
  const at = (share: number) => times[Math.min(times.length - 1, Math.floor(times.length * share))];
  return { least: at(0), median: at(0.5), p99: at(0.99), requests: times.length * batch };
}

/** Waits for one answer; watches the ring for a moment first, as a driver that cannot wait does. */
async function answered(queue: FrontEndQueue): Promise<void> {
  for (let turn = 0; turn < 100_000; turn++) {
    if (queue.driver.reap()) return;
  }
  if (!await queue.reap()) throw new Error("Cannot go on: the device does not answer");
}

/** Puts the request of a slot into the ring. */
function submit(queue: FrontEndQueue, slot: number, readable: number, writable: number): void {
  const at = BUFFERS + slot * SLOT;
  queue.driver.begin();
  queue.driver.addReadable(at, Math.min(readable, READABLE_SIZE_MAX));
  queue.driver.addWritable(at + WRITABLE, writable);
  queue.driver.commit();
}

/** The lines of a stream. */
async function* lines(stream: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<string> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const parts = (rest + text).split("\n");
    rest = parts.pop() ?? "";
    yield* parts;
  }
}
