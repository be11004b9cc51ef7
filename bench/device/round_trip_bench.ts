/**
 * How long a spinning driver waits for its answer: one MAP and one UNMAP of a page, each from the driver's processor to
 * that of a `serve` that polls the ring, through the tables, and back.
 *
 * Most of the time is the transfer of cache lines; the calibration case passes one back and forth between two threads.
 * The cases differ in how many cache lines a ring layout needs.
 */
import { attachRequest, mapRequest, unmapRequest } from "../../device/iommu/driver_requests.ts";
import { MAP_F_READ, MAP_F_WRITE, S_OK } from "../../device/iommu/wire.ts";
import { connectOver, send, type Session, start } from "../../tests/device/served_process.ts";
import { FrontEnd } from "../../device/vhost_user/mod.ts";

/** Where a request and its answer lie in guest memory: next to each other, as with Linux's driver. */
const REQUEST = 0x8020;

/** Sends a request and spins until it was answered. */
function ask({ bytes, queue: { driver, kickEvent } }: Session, request: Uint8Array): void {
  const answer = REQUEST + request.length;
  bytes.set(request, REQUEST);
  driver.begin();
  driver.addReadable(REQUEST, request.length);
  driver.addWritable(answer, 4);
  driver.commit();
  if (driver.kick()) kickEvent.signal();
  while (!driver.reap());
  if (bytes[answer] !== S_OK) throw new Error(`Cannot go on: answered with ${bytes[answer]}`);
}

/** Ring layouts, as `--rings` has them; the first is the default. */
const LAYOUTS = ["packed,event-index,in-order", "packed,event-index", "event-index", "none"];

for (const rings of LAYOUTS) {
  const folder = await Deno.makeTempDir();
  const { process, socket } = await start(folder, ["--rings", rings]);
  globalThis.addEventListener("unload", () => {
    process.kill("SIGKILL");
    Deno.removeSync(folder, { recursive: true });
  });
  const session = await connectOver(FrontEnd.connect(socket, { acceptHigh: -1 }));
  await send(session, attachRequest(1, 24));
  const map = mapRequest({
    domain: 1,
    virtStart: 0x1000n,
    virtEnd: 0x1fffn,
    physStart: 0x5000n,
    flags: MAP_F_READ | MAP_F_WRITE,
  });
  const unmap = unmapRequest(1, 0x1000n, 0x1fffn);

  Deno.bench(`MAP and UNMAP, rings: ${rings}`, { group: "round trips" }, () => {
    ask(session, map);
    ask(session, unmap);
  });
}

/** Words of the calibration: a number, that number returned in another cache line, whether to sleep. */
const GIVEN = 0;
const RETURNED = 32;
const SLEEPS = 48;

/** A thread that returns every number, and sleeps on request. */
const ECHO = `
  self.onmessage = ({ data }) => {
    const words = new Int32Array(data);
    for (let last = 0;;) {
      Atomics.wait(words, ${SLEEPS}, 1);
      const given = Atomics.load(words, ${GIVEN});
      if (given !== last) Atomics.store(words, ${RETURNED}, last = given);
    }
  };`;
const words = new Int32Array(new SharedArrayBuffer(256));
words[SLEEPS] = 1;
const echo = new Worker(URL.createObjectURL(new Blob([ECHO], { type: "text/javascript" })), {
  type: "module",
});
echo.postMessage(words.buffer);

/** Passes a number there and back. */
function bounce(): void {
  const number = words[GIVEN] + 1;
  Atomics.store(words, GIVEN, number);
  while (Atomics.load(words, RETURNED) !== number);
}

Deno.bench("calibration: a cache line there and back, twice", {
  group: "round trips",
  baseline: true,
}, (b) => {
  Atomics.store(words, SLEEPS, 0);
  Atomics.notify(words, SLEEPS);
  bounce();
  b.start();
  bounce();
  bounce();
  b.end();
  Atomics.store(words, SLEEPS, 1);
});
