/** The loop as a guest and a user see it: quick while requests come, idle when none do, never deaf to the rest. */
import { assert, assertEquals } from "@std/assert";
import { deadline, delay } from "@std/async";
import { attachRequest } from "../../../device/iommu/driver_requests.ts";
import {
  connect,
  kill,
  send,
  type Served,
  type Session,
  start,
  withServe,
} from "../served_process.ts";

/** Clock ticks of `/proc/PID/stat` in a second. */
const TICKS = 100;

/** Seconds of processor time that a process has taken, all its threads together. */
async function processorSeconds(pid: number): Promise<number> {
  const stat = await Deno.readTextFile(`/proc/${pid}/stat`);
  // The name in parentheses may hold anything; behind it, utime and stime are the 12th and 13th fields.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}

/** The quickest of several requests to the API, in milliseconds: what else the machine does must not count. */
async function apiLatency({ api }: Served): Promise<number> {
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path: api } });
  let best = Infinity;
  for (let i = 0; i < 20; i++) {
    const begin = performance.now();
    const response = await fetch("http://127.0.0.1/v1/state", { client });
    await response.body?.cancel();
    best = Math.min(best, performance.now() - begin);
  }
  return best;
}

/** Shows the device a request. Returns whether it wants to be notified of it. */
function offer({ bytes, queue }: Session): boolean {
  const request = attachRequest(7, 24);
  bytes.set(request, 0x8000);
  queue.driver.begin();
  queue.driver.addReadable(0x8000, request.length);
  queue.driver.addWritable(0x9000, 4);
  queue.driver.commit();
  return queue.driver.kick();
}

Deno.test("a device whose guest is quiet takes less than 1 % of a processor", async () => {
  await withServe([], async (served) => {
    const session = await connect(served.socket);
    for (let i = 0; i < 200; i++) assertEquals(await send(session, attachRequest(i, 24)), "OK");
    let best = Infinity;
    for (let i = 0; i < 3 && best >= 0.01; i++) {
      await delay(1000);
      const before = await processorSeconds(served.process.pid);
      await delay(3000);
      best = Math.min(best, (await processorSeconds(served.process.pid) - before) / 3);
    }
    assert(best < 0.01, `${best * 100} % of a processor`);
    session.frontEnd.close();
  });
});

Deno.test("while the rings are watched nobody has to kick, and the API answers within milliseconds", async () => {
  await withServe(["--poll-us", "1000000"], async (served) => {
    const session = await connect(served.socket);
    // The first request comes out of sleep and tells the loop that a guest is at work.
    for (let i = 0; i < 3; i++) assertEquals(await send(session, attachRequest(i, 24)), "OK");
    const latency = await apiLatency(served);
    // One turn of the event loop is due every 50 µs; a request takes some 60 of them.
    assert(latency < 20, `${latency} ms`);
    assertEquals(offer(session), false, "the device asks for no kick");
    assert(await session.queue.reap(), "and serves the request without one");
    session.frontEnd.close();
  });
});

Deno.test("with --poll-us 0 the rings are not watched at all: requests need a kick", async () => {
  await withServe(["--poll-us", "0"], async ({ socket }) => {
    const session = await connect(socket);
    let kicks = 0;
    for (let i = 0; i < 20; i++) {
      assertEquals(await send(session, attachRequest(i, 24)), "OK");
      await delay(10);
      if (offer(session)) kicks++;
      session.queue.kickEvent.signal();
      assert(await session.queue.reap());
    }
    // Where the processors are taken it may not have got round to sleeping yet.
    assert(kicks >= 15, `${kicks} of 20 needed a kick`);
    session.frontEnd.close();
  });
});

Deno.test("a signal ends a loop that watches the rings", async () => {
  const folder = await Deno.makeTempDir();
  const { socket, process, log } = await start(folder, ["--poll-us", "1000000"]);
  try {
    const session = await connect(socket);
    for (let i = 0; i < 3; i++) assertEquals(await send(session, attachRequest(i, 24)), "OK");
    process.kill("SIGTERM");
    assertEquals((await deadline(process.status, 2000)).code, 0);
    session.frontEnd.close();
  } finally {
    await kill(process);
    await log;
    await Deno.remove(folder, { recursive: true });
  }
});
