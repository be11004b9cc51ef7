/**
 * The cost of an UNMAP whose invalidation a back end in another thread has to acknowledge, compared to a bare round trip
 * to that thread: one wake-up.
 */
import { EndpointProxy } from "../../device/endpoint/mod.ts";
import { PollSet, UnixListener, UnixStream } from "../../device/host/mod.ts";
import { Log } from "../../device/log.ts";
import {
  Connection,
  FLAG_NEED_REPLY,
  FrontEnd,
  Request,
  TransportFeature,
} from "../../device/vhost_user/mod.ts";
import { RingDriver } from "./ring_driver.ts";

/** The endpoint that the ring's driver attaches. */
const ENDPOINT = 8;
const MEMORY = 1 << 20;
const FIRST_PAGE = 2 ** 16;
/** Measured rounds and warm-up rounds: each sleeps for milliseconds, so the runtime itself would choose too few. */
const ROUNDS = 1000;
const WARMUP = 500;
/** Requests in the larger batch. */
const MANY = 32;

/** A device with a proxied endpoint, its driver, and a bare connection to the same back end. */
class ProxyBench {
  readonly driver = new RingDriver();
  readonly #bare: Connection;
  readonly #poll = new PollSet(8);

  private constructor(bare: Connection, proxy: (device: RingDriver["device"]) => EndpointProxy) {
    this.#bare = bare;
    const made = proxy(this.driver.device);
    this.pump = () => {
      this.#poll.clear();
      made.addTo(this.#poll);
      this.#poll.poll(0);
      made.look(this.#poll);
    };
    this.driver.onHeld = this.pump;
  }

  /** Serves the proxy once, without waiting. */
  readonly pump: () => void;

  /** Starts the back end and connects to it, through the proxy and directly. */
  static async start(): Promise<ProxyBench> {
    const folder = await Deno.makeTempDir();
    const worker = new Worker(import.meta.resolve("./proxy_peer.ts"), { type: "module" });
    const listening = new Promise((resolve) => worker.onmessage = resolve);
    worker.postMessage(`${folder}/peer.sock`);
    await listening;
    const bare = new Connection(UnixStream.connect(`${folder}/peer.sock`));
    const bench = new ProxyBench(bare, (iommu) =>
      new EndpointProxy({
        iommu,
        endpoint: ENDPOINT,
        listener: UnixListener.listen(`${folder}/proxy.sock`),
        backEnd: `${folder}/peer.sock`,
        writeOnly: "widen",
        patience: 5000,
        log: new Log("error"),
      }));
    const frontEnd = FrontEnd.connect(`${folder}/proxy.sock`, {
      acceptHigh: TransportFeature.VERSION_1 | TransportFeature.ACCESS_PLATFORM,
    });
    let isReady = false;
    const ready = frontEnd.negotiate().then(() => frontEnd.addMemory(0, MEMORY))
      .finally(() => isReady = true);
    while (!isReady) {
      bench.pump();
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await ready;
    for (let slot = 0; slot < MANY; slot++) bench.driver.pages[slot] = FIRST_PAGE + 2 * slot;
    await Deno.remove(folder, { recursive: true });
    return bench;
  }

  /** A message to the back end and its acknowledgement. */
  roundTrip(): void {
    this.#bare.send(Request.IOTLB_MSG, FLAG_NEED_REPLY, new Uint8Array(32));
    while (this.#bare.read() === "nothing");
  }
}

let started: Promise<ProxyBench> | undefined;

/** Waits until the back end sleeps, as it does between the requests of a guest. */
async function rested(): Promise<ProxyBench> {
  const bench = await (started ??= ProxyBench.start());
  await new Promise((resolve) => setTimeout(resolve, 1));
  return bench;
}

Deno.bench({
  name: "bare round trip to the back end: one wake-up",
  group: "invalidation",
  warmup: WARMUP,
  n: ROUNDS,
  baseline: true,
  async fn(b) {
    const bench = await rested();
    b.start();
    bench.roundTrip();
    b.end();
  },
});

for (const count of [1, MANY]) {
  Deno.bench({
    name: count === 1 ? "UNMAP, acknowledged" : `${count} UNMAPs in a batch, acknowledged`,
    group: "invalidation",
    warmup: WARMUP,
    n: ROUNDS,
    async fn(b) {
      (await rested()).driver.map(count);
      const bench = await rested();
      b.start();
      bench.driver.unmap(count);
      b.end();
    },
  });
}
