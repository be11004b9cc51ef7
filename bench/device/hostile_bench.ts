/**
 * The longest turn of the loop, for each kind of request: the largest time of a case is how long everything else
 * (signals, the API, the rings of other devices, the front end's messages) may have to wait.
 *
 * A turn should take 1 ms. At most one piece of work follows its end; a case adds that to the calibration case, a loop
 * that only reads the clock for 1 ms. On a busy machine the scheduler determines the largest time of both.
 */
import { Turn } from "../../device/iommu/turn.ts";
import { attachRequest } from "../../device/iommu/driver_requests.ts";
import {
  HOSTILE_REQUESTS,
  HostileRing,
  map,
  SECOND_FORMAT,
  unmap,
} from "../../tests/device/hostile_ring.ts";

/** Requests that are in the ring when a turn begins: more of most kinds than a turn serves. */
const COUNT = 120;
/** As in `loop.ts`. */
const TURN_MS = 1;
/** Mappings that are unmapped with one request, or end with a domain. */
const MAPPINGS = 2 ** 16;

const turn = new Turn();
const GROUP = { group: "longest turn" };

Deno.bench({ name: "calibration: looks at the clock for a turn", ...GROUP, baseline: true }, () => {
  const end = performance.now() + TURN_MS;
  while (performance.now() < end);
});

/** Serves a turn. Returns how many requests were answered. */
function serve(ring: HostileRing): number {
  turn.begin(performance.now(), TURN_MS);
  return ring.serve(turn);
}

/** Serves what is left, to begin the next turn with an empty ring. */
function serveAll(ring: HostileRing, count: number): void {
  while (count > 0 || ring.device.hasWork) count -= serve(ring);
  ring.collect();
}

const kinds = Object.entries(HOSTILE_REQUESTS);
for (const [name, { request }] of kinds) {
  /** Undoes it, for the next turn. */
  const undo: Readonly<Record<string, string>> = {
    "small MAP": "small UNMAP",
    "small UNMAP": "small MAP",
    "large MAP": "large UNMAP",
    "large UNMAP": "large MAP",
    "ATTACH that makes a domain": "DETACH that ends one",
    "DETACH that ends one": "ATTACH that makes a domain",
  };
  let ring: HostileRing | undefined;
  Deno.bench({ name, ...GROUP, n: 100, warmup: 10 }, (b) => {
    ring ??= new HostileRing();
    ring.fill(COUNT, request);
    b.start();
    const served = serve(ring);
    b.end();
    serveAll(ring, COUNT - served);
    const undone = undo[name];
    if (undone === undefined) return;
    ring.fill(COUNT, HOSTILE_REQUESTS[undone].request);
    serveAll(ring, COUNT);
  });
}

/** Maps many single pages of domain 1. */
function fillDomain({ device }: HostileRing): void {
  const domain = device.iommu.domain(1)!;
  for (let i = 0; i < MAPPINGS; i++) device.iommu.map(domain, 2 ** 20 + i, 2 ** 20 + i, i % 7, 3);
}

let unmapped: HostileRing | undefined;
Deno.bench(
  { name: `a turn of an UNMAP of ${MAPPINGS} mappings`, ...GROUP, n: 200, warmup: 10 },
  (b) => {
    unmapped ??= new HostileRing();
    if (!unmapped.device.hasWork) {
      unmapped.collect();
      fillDomain(unmapped);
      unmapped.fill(1, () => unmap(2 ** 20, MAPPINGS));
      serve(unmapped);
    }
    b.start();
    serve(unmapped);
    b.end();
  },
);

/** Pages of 500 GiB: off every large leaf they fill 1 GiB of tables. */
const HUGE = 500 * 2 ** 18;
let huge: HostileRing | undefined;
/** Whether the huge mapping exists or is being made. */
let isMapped = false;
Deno.bench(
  { name: "a turn of MAP and UNMAP of 500 GiB off large leaves", ...GROUP, n: 1500, warmup: 10 },
  (b) => {
    huge ??= new HostileRing();
    if (!huge.device.hasWork) {
      huge.collect();
      huge.fill(1, () => isMapped ? unmap(2 ** 21, HUGE) : map(2 ** 21, HUGE));
      isMapped = !isMapped;
    }
    b.start();
    serve(huge);
    b.end();
  },
);

let refused: HostileRing | undefined;
Deno.bench(
  { name: "a turn of a MAP of 600 GiB that is refused", ...GROUP, n: 1500, warmup: 10 },
  (b) => {
    huge?.[Symbol.dispose]();
    huge = undefined;
    refused ??= new HostileRing();
    if (!refused.device.hasWork) {
      refused.collect();
      refused.fill(1, () => map(2 ** 21, HUGE * 6 / 5));
    }
    b.start();
    serve(refused);
    b.end();
  },
);

let joined: HostileRing | undefined;
Deno.bench(
  { name: `a turn of an ATTACH of a second format to ${MAPPINGS} mappings`, ...GROUP, n: 200 },
  (b) => {
    if (joined === undefined) {
      joined = new HostileRing();
      fillDomain(joined);
    }
    if (!joined.device.hasWork) {
      joined.collect();
      joined.device.iommu.attach(2, SECOND_FORMAT, false);
      joined.fill(1, () => attachRequest(1, SECOND_FORMAT));
    }
    b.start();
    serve(joined);
    b.end();
  },
);

let reset: HostileRing | undefined;
Deno.bench({ name: `a reset with ${MAPPINGS} mappings`, ...GROUP, n: 20, warmup: 2 }, (b) => {
  reset ??= new HostileRing();
  while (reset.device.hasWork) serve(reset);
  reset.device.iommu.attach(1, 8, false);
  fillDomain(reset);
  b.start();
  reset.device.reset("device");
  b.end();
});

let ending: HostileRing | undefined;
Deno.bench({ name: "a turn while a domain ends", ...GROUP, n: 200, warmup: 10 }, (b) => {
  ending ??= new HostileRing();
  if (!ending.device.hasWork) {
    ending.device.reset("device");
    ending.device.iommu.attach(1, 8, false);
    fillDomain(ending);
    ending.device.reset("device");
  }
  ending.fill(1, () => map(1, 1));
  b.start();
  const served = serve(ending);
  b.end();
  if (served === 0) serveAll(ending, 1);
  else ending.collect();
});
