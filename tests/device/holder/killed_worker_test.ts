import { assert, assertEquals } from "@std/assert";
import { attachRequest, mapRequest } from "../../../device/iommu/driver_requests.ts";
import { connect, send, withServe } from "../served_process.ts";
import { killWorker, processOf } from "./supervised.ts";

const PAGE = 4096n;

function map(page: number): Uint8Array {
  const virtStart = BigInt(page) * PAGE;
  return mapRequest({
    domain: 1,
    virtStart,
    virtEnd: virtStart + PAGE - 1n,
    physStart: 0x40000n,
    flags: 3,
  });
}

Deno.test("a guest goes on with its mappings when the process that serves it is killed again and again", async () => {
  const log = await withServe(["--supervise", "--endpoint", "8"], async (served) => {
    using session = await connect(served.socket);
    assertEquals(await send(session, attachRequest(1, 8)), "OK");
    for (let round = 0; round < 4; round++) {
      assertEquals(await send(session, map(round)), "OK");
      const killed = await processOf(served.api);
      killWorker(killed);
      // What was mapped before is there: the same page cannot be mapped again.
      assertEquals(await send(session, map(round)), "INVAL");
      const now = await processOf(served.api);
      assert(now.pid !== killed.pid && now.generation > killed.generation);
      assertEquals(now.deaths, round + 1);
    }
  });
  assert(!log.includes("refused"), log);
});
