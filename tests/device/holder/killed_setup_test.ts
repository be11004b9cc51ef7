/**
 * The process that serves is killed at each message by which a front end sets up its session. The front end must see no
 * difference: every answer comes, once, and the rings work.
 *
 * `VIOMMU_TEST=full` kills at every message in each way; the normal run at every seventh, in one way each.
 */
import { assertEquals } from "@std/assert";
import { attachRequest, mapRequest, unmapRequest } from "../../../device/iommu/driver_requests.ts";
import { FrontEnd, TransportFeature } from "../../../device/vhost_user/mod.ts";
import { isLong } from "../../long_mode.ts";
import { send, withServe } from "../served_process.ts";
import { killWorker, withSpare } from "./supervised.ts";
import type { ProcessState } from "../../../device/api/mod.ts";

const PACKED = TransportFeature.VERSION_1 | TransportFeature.RING_PACKED;

/** When a process dies: before a message is sent; when it is sent and cannot have been served; or while it is served. */
const WAYS = ["before", "unserved", "meanwhile"] as const;
type Way = typeof WAYS[number];

/** Counts the messages of a front end, and kills the process that serves at one of them. */
function killAt(frontEnd: FrontEnd, process: ProcessState, at: number, way: Way): () => number {
  const { connection } = frontEnd;
  const original = connection.send.bind(connection);
  let count = 0;
  connection.send = (request, flags, payload, descriptors) => {
    const isIt = count++ === at;
    if (isIt && way === "before") killWorker(process);
    if (isIt && way === "unserved") Deno.kill(process.pid, "SIGSTOP");
    const isAlive = original(request, flags, payload, descriptors);
    if (isIt && way !== "before") killWorker(process);
    return isAlive;
  };
  return () => count;
}

/** A session with everything in it; returns how many messages that were. */
async function session(
  socket: string,
  process: ProcessState,
  at: number,
  way: Way,
): Promise<number> {
  const frontEnd = FrontEnd.connect(socket, { acceptHigh: PACKED });
  try {
    const count = killAt(frontEnd, process, at, way);
    await frontEnd.negotiate();
    const { mapping } = await frontEnd.addMemory(0, 1 << 20);
    const more = await frontEnd.addMemory(1 << 20, 1 << 20);
    const config = await frontEnd.readConfig(0, 40);
    assertEquals(config.length, 40);
    await frontEnd.writeConfig(36, Uint8Array.of(0));
    const queue = await frontEnd.startQueue(0, { size: 16, address: 0x1000 });
    await frontEnd.startQueue(1, { size: 16, address: 0x3000 });
    await frontEnd.removeMemory(more);
    const guest = { frontEnd, queue, bytes: new Uint8Array(mapping.buffer) };
    assertEquals(await send(guest, attachRequest(1, 8)), "OK");
    const page = { domain: 1, virtStart: 0n, virtEnd: 0xfffn, physStart: 0x5000n, flags: 3 };
    assertEquals(await send(guest, mapRequest(page)), "OK");
    const base = await frontEnd.stopQueue(queue);
    await frontEnd.resumeQueue(queue, base);
    assertEquals(await send(guest, unmapRequest(1, 0n, 0xfffn)), "OK");
    assertEquals((await frontEnd.readConfig(36, 1))[0], 0);
    return count();
  } finally {
    frontEnd.close();
  }
}

Deno.test("a process may be killed at any message of a session, and the front end does not notice", async () => {
  const log = await withServe(["--supervise", "--endpoint", "8"], async ({ socket, api }) => {
    const count = await session(socket, await withSpare(api), -1, "before");
    const step = isLong ? 1 : 7;
    for (let at = 0; at < count; at += step) {
      for (const way of isLong ? WAYS : [WAYS[(at / step) % WAYS.length]]) {
        const before = await withSpare(api);
        assertEquals(await session(socket, before, at, way), count, `${way} ${at}`);
        assertEquals((await withSpare(api)).deaths, before.deaths + 1, `${way} ${at}`);
      }
    }
  });
  assertEquals(
    log.split("\n").filter((line) => /refused|connection closed|no packet/.test(line)),
    [],
  );
});
