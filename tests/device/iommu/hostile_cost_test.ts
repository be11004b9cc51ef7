/**
 * What a guest gets refused costs the device no more than what it gets served.
 *
 * Times are the best of many batches, and the limit is twice the cost of a served request: the test is about
 * exceptions, logs and searches that only errors would pay for, which cost ten times that.
 */
import { assert, assertEquals } from "@std/assert";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  probeRequest,
  unmapRequest,
} from "../../../device/iommu/driver_requests.ts";
import { Stepped } from "../stepped_guest.ts";

const BATCH = 500;
const BATCHES = 60;
const PROBE_ROOM = 28;

/** Serves a request; its status, or -1 for one that came back unwritten. */
function serve(guest: Stepped, bytes: Uint8Array, room = 4): number {
  const length = guest.serve(bytes, room);
  return length === 0 ? -1 : guest.statusAt(length);
}

/** Microseconds for one of the requests, and their statuses. */
function cost(
  guest: Stepped,
  requests: readonly Uint8Array[],
  room: number,
): { readonly time: number; readonly statuses: readonly number[] } {
  let best = Infinity;
  for (let batch = 0; batch < BATCHES; batch++) {
    const start = performance.now();
    for (let i = 0; i < BATCH; i++) for (const bytes of requests) serve(guest, bytes, room);
    best = Math.min(best, performance.now() - start);
  }
  const statuses = requests.map((bytes) => serve(guest, bytes, room));
  return { time: best * 1000 / BATCH / requests.length, statuses };
}

Deno.test("a refused request costs at most twice a served one", () => {
  using guest = new Stepped();
  const fields = { domain: 1, virtStart: 0x1000n, virtEnd: 0x1fffn, physStart: 0x5000n, flags: 3 };
  for (let endpoint = 0; endpoint < 64; endpoint++) serve(guest, attachRequest(1, endpoint), 4);
  for (let i = 16n; i < 4096n; i += 2n) {
    const virtStart = i * 0x1000n;
    serve(guest, mapRequest({ ...fields, virtStart, virtEnd: virtStart + 0xfffn }), 4);
  }
  const wide = mapRequest({ ...fields, virtStart: 0x10000n, virtEnd: 0xffffffn });
  const [OK, INVAL, RANGE, NOENT] = [0, 4, 5, 6];
  const served = cost(guest, [mapRequest(fields), unmapRequest(1, 0x1000n, 0x1fffn)], 4);
  assertEquals(served.statuses, [OK, OK]);
  serve(guest, mapRequest({ ...fields, virtStart: 0x2000n, virtEnd: 0x3fffn }), 4);
  const unknown = new Uint8Array(36).fill(0xff);
  const reserved = { ...fields, virtStart: 0xfee00000n, virtEnd: 0xfee00fffn };
  const refused: Readonly<Record<string, readonly [Uint8Array, number]>> = {
    "unknown type": [unknown, -1],
    "cut short": [mapRequest(fields).slice(0, 35), INVAL],
    "ATTACH, reserved field": [
      Uint8Array.from(attachRequest(1, 8), (b, i) => i > 15 ? 1 : b),
      INVAL,
    ],
    "ATTACH, no endpoint": [attachRequest(1, 0x10000), NOENT],
    "ATTACH, other bypass": [attachRequest(1, 100, 1), INVAL],
    "DETACH, no endpoint": [detachRequest(1, 0x10000), NOENT],
    "DETACH, not attached": [detachRequest(1, 100), INVAL],
    "MAP, no domain": [mapRequest({ ...fields, domain: 7 }), NOENT],
    "MAP, flags": [mapRequest({ ...fields, flags: 8 }), INVAL],
    "MAP, off the granule": [mapRequest({ ...fields, virtStart: 0x1001n }), RANGE],
    "MAP, outside": [mapRequest({ ...fields, virtEnd: 2n ** 63n - 1n }), RANGE],
    "MAP, over one mapping": [
      mapRequest({ ...fields, virtStart: 0x2000n, virtEnd: 0x2fffn }),
      INVAL,
    ],
    "MAP, over thousands": [wide, INVAL],
    "MAP, reserved region": [mapRequest(reserved), INVAL],
    "UNMAP, no domain": [unmapRequest(7, 0x1000n, 0x1fffn), NOENT],
    "UNMAP, split": [unmapRequest(1, 0x2000n, 0x2fffn), RANGE],
    "UNMAP, split behind thousands": [unmapRequest(1, 0x2000n, 0x1001fffn), RANGE],
  };
  serve(guest, mapRequest({ ...fields, virtStart: 0x1001000n, virtEnd: 0x1002fffn }), 4);
  const slow: string[] = [];
  for (const [name, [bytes, status]] of Object.entries(refused)) {
    const { time, statuses } = cost(guest, [bytes], 4);
    assertEquals(statuses, [status], name);
    if (time > 2 * served.time) slow.push(`${name}: ${time.toFixed(2)} µs`);
  }
  const probed = cost(guest, [probeRequest(8)], PROBE_ROOM);
  const unprobed = cost(guest, [probeRequest(0x10000)], PROBE_ROOM);
  assertEquals([...probed.statuses, ...unprobed.statuses], [OK, NOENT]);
  assert(unprobed.time < 2 * probed.time, `PROBE: ${unprobed.time} µs, served ${probed.time} µs`);
  assertEquals(slow, [], `served: ${served.time.toFixed(2)} µs`);
});
