/** The loop as a guest and a user see it: quick while requests come, idle when none do, never deaf to the rest. */
import { assert, assertEquals } from "@std/assert";
import { delay } from "@std/async";
import { attachRequest } from "../../../device/iommu/driver_requests.ts";
import { until } from "../../until.ts";
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

/** Asks the API several times. */
async function askApi({ api }: Served): Promise<void> {
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path: api } });
  for (let i = 0; i < 5; i++) {
    const response = await fetch("http://127.0.0.1/v1/state", { client });
    await response.body?.cancel();
    assertEquals(response.status, 200);
  }
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
    using session = await connect(served.socket);
    for (let i = 0; i < 200; i++) assertEquals(await send(session, attachRequest(i, 24)), "OK");
    let best = Infinity;
    for (let i = 0; i < 10 && best >= 0.01; i++) {
      await delay(1000);
      const before = await processorSeconds(served.process.pid);
      await delay(3000);
      best = Math.min(best, (await processorSeconds(served.process.pid) - before) / 3);
    }
    assert(best < 0.01, `${best * 100} % of a processor`);
  });
});

Deno.test("while the rings are polled the driver need not kick, and the API answers", async () => {
  await withServe(["--poll-us", "1000000"], async (served) => {
    using session = await connect(served.socket);
    // The first request comes out of sleep and tells the loop that a guest is at work.
    for (let i = 0; i < 3; i++) assertEquals(await send(session, attachRequest(i, 24)), "OK");
    let isWatched = false;
    // An API that waited for the end of the watching would answer after it every time; a busy machine does not.
    for (let i = 0; i < 30 && !isWatched; i++) {
      await askApi(served);
      isWatched = !offer(session);
      if (!isWatched) session.queue.kickEvent.signal();
      assert(
        await session.queue.reap(),
        "the request is served, without a kick if none was asked for",
      );
    }
    assert(isWatched, "no request after those to the API was served without a kick");
  });
});

Deno.test("with --poll-us 0 the rings are not watched at all: requests need a kick", async () => {
  await withServe(["--poll-us", "0"], async ({ socket }) => {
    using session = await connect(socket);
    let kicks = 0;
    // Where the processors are taken the loop may not have got round to sleeping yet.
    for (let i = 0; i < 1000 && kicks < 10; i++) {
      assertEquals(await send(session, attachRequest(i, 24)), "OK");
      await delay(10);
      if (offer(session)) kicks++;
      session.queue.kickEvent.signal();
      assert(await session.queue.reap());
    }
    assertEquals(kicks, 10);
  });
});

Deno.test("a signal ends a loop that watches the rings, while requests come", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const { socket, process, log } = await start(folder, ["--poll-us", "1000000"]);
    try {
      using session = await connect(socket);
      const { queue } = session;
      for (let i = 0; i < 3; i++) assertEquals(await send(session, attachRequest(i, 24)), "OK");
      let hasEnded = false;
      const ended = process.status.then(({ code }) => {
        hasEnded = true;
        return code;
      });
      process.kill("SIGTERM");
      let isOffered = false;
      await until(() => {
        if (isOffered) isOffered = !queue.driver.reap();
        else {
          isOffered = true;
          if (offer(session)) queue.kickEvent.signal();
        }
        return hasEnded;
      }, "it ends");
      assertEquals(await ended, 0);
    } finally {
      await kill(process);
      await log;
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
