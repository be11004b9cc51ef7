/**
 * Event descriptors of a hostile front end, against `serve` as a process of its own: whatever they are, it
 * neither waits for them nor spins, and answers requests and its API as ever.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { deadline, delay } from "@std/async";
import { attachRequest } from "../../../device/iommu/driver_requests.ts";
import { createMemoryFile, createPipe, Descriptor, UnixStream } from "../../../device/host/mod.ts";
import { libc } from "../../../device/host/libc.ts";
import { FrontEnd, Request } from "../../../device/vhost_user/mod.ts";
import { words } from "../../bytes.ts";
import { HANG_MS, until } from "../../until.ts";
import { connect, send, type Served, type Session, withServe } from "../served_process.ts";

/** `EFD_SEMAPHORE`, `F_SETFL`, and a counter that has no room for one more. */
const SEMAPHORE = 1;
const setFlags = 4;
const FULL = 0xffff_ffff_ffff_fffen;
/** Milliseconds in which a process is watched. */
const WATCH = 500;

/** A full event, to be handed over. */
function fullEvent(flags: number): Descriptor {
  const descriptor = new Descriptor(libc().eventfd(0, flags));
  libc().write(descriptor.number, new BigUint64Array([FULL]), 8n);
  return descriptor;
}

/** Hands over an event of the request ring, and makes it blocking afterwards. */
async function handOver({ frontEnd }: Session, request: number, event: Descriptor): Promise<void> {
  await frontEnd.tell(request, words(0, 0), [event]);
  libc().fcntl(event.number, setFlags, 0);
}

/** Sends a request that wants a signal, and looks for the answer without one. */
async function requestSilently({ queue, bytes }: Session, endpoint: number): Promise<void> {
  const request = attachRequest(3, endpoint);
  bytes.set(request, 0x8000);
  bytes.fill(0xff, 0x9000, 0x9004);
  queue.driver.begin();
  queue.driver.addReadable(0x8000, request.length);
  queue.driver.addWritable(0x9000, 4);
  queue.driver.commit();
  queue.driver.enableSignals();
  queue.kick();
  await until(() => queue.driver.reap(), "the device answers");
  assertEquals([...bytes.subarray(0x9000, 0x9004)], [0, 0, 0, 0]);
}

/** The API answers. */
async function assertApiAnswers({ api }: Served): Promise<void> {
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path: api } });
  const response = await deadline(fetch("http://127.0.0.1/v1/state", { client }), HANG_MS);
  await response.body?.cancel();
  assertEquals(response.status, 200);
}

/** The part of one processor that a process uses while it is watched. */
async function load({ process }: Served): Promise<number> {
  const before = await processorTicks(process.pid);
  await delay(WATCH);
  const ticksPerSecond = 100;
  return (await processorTicks(process.pid) - before) / ticksPerSecond / (WATCH / 1000);
}

async function processorTicks(pid: number): Promise<number> {
  const stat = await Deno.readTextFile(`/proc/${pid}/stat`);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

Deno.test("a call descriptor that is full and blocking does not stop the device", async () => {
  await withServe([], async (served) => {
    using session = await connect(served.socket);
    using call = fullEvent(0);
    await handOver(session, Request.SET_VRING_CALL, call);
    for (let i = 0; i < 50; i++) await requestSilently(session, 24 + i);
    await assertApiAnswers(served);
    session.frontEnd.close();
    using next = await connect(served.socket);
    assertEquals(await send(next, attachRequest(3, 24)), "OK");
  });
});

Deno.test("an error descriptor that is full and blocking does not stop the device", async () => {
  const log = await withServe([], async (served) => {
    using session = await connect(served.socket);
    using error = fullEvent(0);
    await handOver(session, Request.SET_VRING_ERR, error);
    session.bytes.fill(0xff, 0x1000, 0x1000 + 16 * 16);
    session.queue.driver.begin();
    session.queue.driver.addReadable(0xffff_f000, 16);
    session.queue.driver.commit();
    // A descriptor index beyond the ring.
    const available = session.queue.driver.driverArea;
    new DataView(session.bytes.buffer).setUint16(available + 4, 0x7fff, true);
    session.queue.kick();
    session.queue.kickEvent.signal();
    await delay(100);
    await assertApiAnswers(served);
    session.frontEnd.close();
    using next = await connect(served.socket);
    assertEquals(await send(next, attachRequest(3, 24)), "OK");
  });
  assertStringIncludes(log, "Queue 0 stopped");
});

Deno.test("a kick descriptor that is always ready does not keep the device busy", async () => {
  const log = await withServe([], async (served) => {
    using session = await connect(served.socket);
    using kick = fullEvent(SEMAPHORE);
    await handOver(session, Request.SET_VRING_KICK, kick);
    for (let i = 0; i < 10; i++) await requestSilently(session, 24 + i);
    await delay(200);
    const part = await load(served);
    assert(part < 0.5, `it uses ${part} of a processor`);
    await assertApiAnswers(served);
  });
  assertStringIncludes(log, "The kick of queue 0 has no end");
});

Deno.test("what is no event descriptor is refused, and the device serves on", async () => {
  const log = await withServe([], async (served) => {
    const requests = [Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR];
    for (const request of requests) {
      const [reader, writer] = createPipe();
      const [one, other] = UnixStream.pair();
      using file = createMemoryFile("always-readable", 4096);
      const others = [reader, writer, one.descriptor, file];
      for (const descriptor of others) {
        const frontEnd = FrontEnd.connect(served.socket);
        await frontEnd.negotiate();
        const refusal = await frontEnd.tell(request, words(0, 0), [descriptor]).then(
          () => "done",
          (error: Error) => error.message,
        );
        assertStringIncludes(refusal, "the back end refused");
        frontEnd.close();
      }
      for (const each of [reader, writer, one, other, file]) each.close();
    }
    using session = await connect(served.socket);
    assertEquals(await send(session, attachRequest(3, 24)), "OK");
  });
  assertStringIncludes(log, "its descriptor is not an eventfd");
});
