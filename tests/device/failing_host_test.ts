/**
 * Whatever system call fails, with whatever error: it ends the session of the peer it was made for at most, and the guest
 * is served.
 *
 * Some errors in each call, or with `VIOMMU_TEST=full` all of them.
 */
import { assert, assertEquals } from "@std/assert";
import { deadline, delay } from "@std/async";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  unmapRequest,
} from "../../device/iommu/driver_requests.ts";
import {
  currentProcessor,
  Descriptor,
  moveAwayFrom,
  PeerThreads,
  ProcessorSet,
  UnixListener,
  UnixStream,
} from "../../device/host/mod.ts";
import { O_RDONLY } from "../../device/host/constants.ts";
import { cString, libc } from "../../device/host/libc.ts";
import { FrontEnd, Request, TransportFeature } from "../../device/vhost_user/mod.ts";
import { isLong } from "../long_mode.ts";
import { HANG_MS, until } from "../until.ts";
import { ScriptedBackEnd } from "./endpoint/proxy/scripted_back_end.ts";
import type { ServeOrder } from "./failing_serve_worker.ts";
import { CALLS, failAsPlanned, FailurePlan } from "./host/failing_libc.ts";
import { mappingsOf } from "./host/host_state.ts";
import { connect, send, type Session } from "./served_process.ts";

/** Linux has errors from 1 to 133. The short list: EINTR, EAGAIN, ENOMEM, EINVAL, EMFILE. */
const ERRORS = isLong ? Array.from({ length: 133 }, (_, i) => i + 1) : [4, 11, 12, 22, 24];
/** More often than a call is tried where its error cannot be believed at once. */
const TIMES = 4;
/** Calls that are made once, and then again after some time. */
const TRIED_ONCE = ["accept4", "connect", "socket"];
const EBADF = 9;
const ENDPOINTS = { rng: 24, blk: 32, proxy: 40 };
const MEMORY = 1 << 20;

/** Calls that nothing makes while it serves peers of this process, and why. */
const NOT_MADE = [
  // Sockets, images, wake-ups and pipes are made at the beginning, and files removed at the end.
  ...["bind", "eventfd", "flock", "getgrnam", "lchown", "link", "listen", "lseek", "pipe2"],
  ...["umask", "unlink"],
  // Made once: see the test of these.
  ...["ioSetup", "mprotect", "open", "sigaction"],
  // Threads are looked for in other processes only: see the test of these.
  ...["getdents64", "openat", "read", "schedGetAffinity", "schedGetCpu", "schedSetAffinity"],
  // Made when it has been idle for a while, and while there is no guest: see the test of that.
  "pollOnThread",
  // This worker enters no sandbox, has no devices of the host, and is no worker of a holder.
  ...["systemCall", "kcmp", "pidfdGetfd", "kill", "prctl", "setsockopt", "spawn", "waitpid"],
  ...["spawnActionsDestroy", "spawnActionsInit", "spawnAddDuplicate"],
  ...["spawnAttributesDestroy", "spawnAttributesInit", "spawnSetFlags"],
  // Host frames are not asked for.
  ...["madvise", "mlock2", "pread"],
  // Instead of a socket option that this kernel has; and of log lines, which this worker keeps.
  ...["pidfdOpen", "writeOnThread"],
  // Where a write has to be stable at once, the driver has not agreed to FLUSH.
  "fdatasync",
];

/** The worker and its peers. */
class World implements AsyncDisposable {
  readonly plan: FailurePlan;
  readonly folder: string;
  readonly #worker: Worker;
  readonly #ended = Promise.withResolvers<{ lines: string[]; failures: Record<string, number> }>();
  readonly #backEnds: UnixListener;
  /** With what the worker failed. */
  failure: string | undefined;

  private constructor(folder: string, plan: FailurePlan) {
    this.folder = folder;
    this.plan = plan;
    Deno.writeFileSync(`${folder}/image`, new Uint8Array(65536));
    this.#backEnds = UnixListener.listen(`${folder}/back`);
    this.#worker = new Worker(new URL("failing_serve_worker.ts", import.meta.url), {
      type: "module",
    });
  }

  static async start(plan = new FailurePlan()): Promise<World> {
    const world = new World(await Deno.makeTempDir(), plan);
    const ready = Promise.withResolvers<void>();
    world.#worker.onmessage = ({ data }) => {
      if (data === "ready") return ready.resolve();
      if ("error" in data) {
        world.failure = data.error;
        ready.reject(new Error(data.error));
      }
      world.#ended.resolve(data);
    };
    world.#worker.postMessage(
      { plan: world.plan.words, folder: world.folder, endpoints: ENDPOINTS } satisfies ServeOrder,
    );
    await ready.promise;
    return world;
  }

  path(name: string): string {
    return `${this.folder}/${name}`;
  }

  /** A session of the guest's own. */
  async guest(): Promise<Session> {
    return await connect(this.path("iommu"));
  }

  /** What peers do: connect, are served, and go. Returns which of them were served. */
  async visit(guest: Session | undefined): Promise<string[]> {
    const served: string[] = [];
    const visits: [string, () => Promise<void>][] = [
      ["second", () => this.#knock()],
      ["rng", () => this.#visitDevice("rng", [[[WRITABLE, 16]]])],
      ["blk", () => this.#visitDevice("blk", DISK_REQUESTS)],
      ["proxy", () => this.#visitProxy(guest)],
    ];
    for (const [name, visit] of visits) {
      try {
        await visit();
        served.push(name);
      } catch {
        // The host failed on its behalf.
      }
    }
    return served;
  }

  /** Ends the worker. Returns what it logged. */
  async stop(): Promise<{ lines: string[]; failures: Record<string, number> }> {
    this.#worker.postMessage("stop");
    return await deadline(this.#ended.promise, HANG_MS);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#worker.terminate();
    this.#backEnds.close();
    await Deno.remove(this.folder, { recursive: true });
  }

  async #knock(): Promise<void> {
    const stream = UnixStream.connect(this.path("iommu"));
    try {
      await until(() => stream.receive(new Uint8Array(1), 0, 1) === 0, "it is refused");
    } finally {
      stream.close();
    }
  }

  /** A whole session with a device behind the IOMMU, and one request of it. */
  async #visitDevice(name: string, requests: readonly (readonly Part[])[]): Promise<void> {
    const frontEnd = FrontEnd.connect(this.path(name), {
      acceptLow: ~(TransportFeature.LOG_ALL | TransportFeature.INDIRECT_DESC),
      acceptHigh: TransportFeature.VERSION_1 | TransportFeature.ACCESS_PLATFORM,
      userOffset: 0,
    });
    try {
      await frontEnd.negotiate();
      // A file, of which closing may wait: it is closed on another thread.
      const file = new Descriptor(libc().open(cString("/proc/self/stat"), O_RDONLY, 0));
      await frontEnd.tell(Request.SET_LOG_FD, new Uint8Array(0), [file]).finally(() =>
        file.close()
      );
      const region = await frontEnd.addMemory(0, MEMORY);
      const queue = await frontEnd.startQueue(0, { size: 16, address: 0x1000 });
      const bytes = new Uint8Array(region.mapping.buffer);
      const asked = new Uint8Array(20);
      asked.set([1, 0, 16, 0], 16);
      await frontEnd.ask(Request.GET_INFLIGHT_FD, asked);
      for (const parts of requests) {
        queue.driver.begin();
        parts.forEach(([kind, length], i) => {
          const at = 0x8000 + i * 0x1000;
          bytes.fill(0, at, at + length);
          if (kind === WRITABLE) queue.driver.addWritable(at, length);
          else queue.driver.addReadable(at, length);
          if (kind > 0) bytes[at] = kind;
          // `num_sectors` of a range to discard.
          if (length === 16 && i === 1) bytes[at + 8] = 8;
        });
        queue.driver.commit();
        queue.kick();
        assert(await queue.reap(2000));
        if (name === "blk") assertEquals(bytes[0x7000 + parts.length * 0x1000], 0);
      }
    } finally {
      frontEnd.close();
    }
  }

  /** A whole session with a proxied back end, with a mapping of the guest's that it is told of. */
  async #visitProxy(guest: Session | undefined): Promise<void> {
    const frontEnd = FrontEnd.connect(this.path("proxy"), {
      acceptHigh: TransportFeature.VERSION_1 | TransportFeature.ACCESS_PLATFORM,
      userOffset: 2 ** 40,
    });
    const [ours, theirs] = UnixStream.pair();
    let backEnd: ScriptedBackEnd | undefined;
    try {
      let stream: UnixStream | undefined;
      const negotiated = frontEnd.negotiate();
      negotiated.catch(() => {});
      let isOver = false;
      negotiated.catch(() => isOver = true);
      await until(() => {
        stream = this.#backEnds.accept();
        return stream !== undefined || isOver;
      }, "the proxy connects");
      if (stream !== undefined) backEnd = new ScriptedBackEnd(stream);
      await negotiated;
      await frontEnd.tell(Request.SET_BACKEND_REQ_FD, new Uint8Array(0), [theirs.descriptor]);
      await frontEnd.addMemory(0, MEMORY);
      if (guest !== undefined) await useDomain(guest, ENDPOINTS.proxy);
    } finally {
      theirs.close();
      ours.close();
      frontEnd.close();
      backEnd?.[Symbol.dispose]();
      await backEnd?.closed;
      this.#backEnds.accept()?.close();
    }
  }
}

/** Attaches, maps, unmaps, detaches: what a guest cannot do without. */
async function useDomain(guest: Session, endpoint: number): Promise<void> {
  const virtStart = 0x7000n;
  const virtEnd = 0x7fffn;
  assertEquals(await send(guest, attachRequest(3, endpoint)), "OK");
  const map = { domain: 3, virtStart, virtEnd, physStart: 0x5000n, flags: 3 };
  assertEquals(await send(guest, mapRequest(map)), "OK");
  assertEquals(await send(guest, unmapRequest(3, virtStart, virtEnd)), "OK");
  assertEquals(await send(guest, detachRequest(3, endpoint)), "OK");
}

/** A writable part of a request. */
const WRITABLE = -1;
/** A part of a request: writable, or readable with its first byte; and its length. */
type Part = readonly [number, number];
/** virtio 5.2.6: T_IN, T_OUT, T_FLUSH and T_DISCARD, with their headers, data and status. */
const DISK_REQUESTS: readonly (readonly Part[])[] = [
  [[0, 16], [WRITABLE, 512], [WRITABLE, 1]],
  [[1, 16], [0, 512], [WRITABLE, 1]],
  [[4, 16], [WRITABLE, 1]],
  [[11, 16], [0, 16], [WRITABLE, 1]],
];

const EVERYTHING = ["second", "rng", "blk", "proxy"];

Deno.test("whatever call fails for other peers, and with whatever error, the guest is served on", async () => {
  const before = mappingsOf("guest-memory").length;
  await using world = await World.start();
  const { plan } = world;
  const guest = await world.guest();
  const begun = performance.now();
  try {
    assertEquals(await world.visit(guest), EVERYTHING);
    const unmade: string[] = [];
    let injected = 0;
    for (const call of CALLS) {
      let hits = 0;
      for (const error of ERRORS) {
        // EBADF of close is a fault of ours, which is thrown on purpose.
        if (call === "close" && error === EBADF) continue;
        plan.fail(call, error, TRIED_ONCE.includes(call) ? 1 : TIMES);
        await world.visit(guest);
        // Enough signals that their results are collected once.
        if (call === "ioGetEvents") { for (let i = 0; i < 8; i++) await useDomain(guest, 7); }
        hits += plan.end();
        assertEquals(world.failure, undefined, `${call} failed with ${error}`);
        await deadline(useDomain(guest, 7), HANG_MS);
        if (hits === 0) break;
        injected++;
      }
      if (hits === 0) unmade.push(call);
      else {
        await until(
          async () => (await world.visit(guest)).length === EVERYTHING.length,
          `everything is served again after ${call}`,
        );
      }
    }
    console.log(`${injected} failures; not made: ${unmade.join(" ")}`);
    assertEquals(unmade.filter((call) => !NOT_MADE.includes(call)), []);
    const { lines } = await world.stop();
    // Of each of some twenty kinds ten at once, and then one a second.
    const most = 20 * (10 + (performance.now() - begun) / 1000);
    assert(lines.length < most, `${lines.length} lines, ${most} at most`);
  } finally {
    guest.frontEnd.close();
  }
  await until(
    () => mappingsOf("guest-memory").length <= before,
    "all guest memory of this test is unmapped",
  );
});

Deno.test("whatever call fails while a guest connects, the next one is served", async () => {
  await using world = await World.start();
  const { plan } = world;
  for (const call of CALLS) {
    for (const error of isLong ? ERRORS : [1, 12, 22]) {
      if (call === "close" && error === EBADF) continue;
      plan.fail(call, error, TIMES);
      await nextGuest(world).catch(() => {});
      const hits = plan.end();
      await until(
        () => nextGuest(world).then(() => true, () => false),
        `a guest is served after ${call}`,
      );
      assertEquals(world.failure, undefined, `${call} failed with ${error}`);
      if (hits === 0) break;
    }
  }
  await world.stop();
});

/** Connects, is served, and goes. */
async function nextGuest(world: World): Promise<void> {
  const frontEnd = FrontEnd.connect(world.path("iommu"));
  try {
    await frontEnd.negotiate();
    const { mapping } = await frontEnd.addMemory(0, MEMORY);
    const queue = await frontEnd.startQueue(0, { size: 16, address: 0x1000 });
    await useDomain({ frontEnd, queue, bytes: new Uint8Array(mapping.buffer) }, 7);
  } finally {
    frontEnd.close();
  }
}

Deno.test("a connection that cannot be accepted does not keep the processor busy, with a guest or without", async () => {
  await using world = await World.start();
  const EMFILE = 24;
  for (const isServed of [false, true]) {
    const guest = isServed ? await world.guest() : undefined;
    world.plan.fail("accept4", EMFILE, 1_000_000);
    const waiting = ["iommu", "rng", "blk", "proxy"].map((name) =>
      UnixStream.connect(world.path(name))
    );
    const begun = performance.now();
    await until(() => world.plan.hits >= 4, "each of the four listeners has tried");
    await delay(500);
    const hits = world.plan.end();
    // Each of the four listeners is left alone for 100 ms.
    const most = 4 * ((performance.now() - begun) / 100 + 2);
    assert(hits <= most, `${hits} times, ${most} at most`);
    for (const each of waiting) each.close();
    if (guest !== undefined) await useDomain(guest, 7);
    guest?.frontEnd.close();
  }
  const { lines } = await world.stop();
  // The connection itself may be accepted, and refused, once the host permits it.
  const refusals = lines.filter((line) => line.includes("second front end"));
  assert(refusals.length <= 1, refusals.join("; "));
  assert(lines.includes("viommu: warn: Cannot accept a connection: accept4 failed: EMFILE"));
});

Deno.test("what is set up once may fail for good: a guest is served without it", async () => {
  for (const call of ["ioSetup", "mprotect", "open", "sigaction"]) {
    const plan = new FailurePlan();
    plan.fail(call, 1, 1_000_000);
    await using world = await World.start(plan);
    await nextGuest(world);
    await nextGuest(world);
    assert(plan.end() > 0, call);
    await world.stop();
  }
});

Deno.test("threads whose places cannot be found or changed are left where they are", () => {
  const plan = new FailurePlan();
  using _failing = failAsPlanned(plan);
  const ofOne = new ProcessorSet();
  ofOne.add(0);
  const calls = ["getdents64", "open", "openat", "read", "schedGetAffinity", "schedGetCpu"];
  for (const call of [...calls, "schedSetAffinity", "close", "lseek"]) {
    for (let error = 1; error <= 133; error++) {
      if (call === "close" && error === EBADF) continue;
      plan.fail(call, error, 1_000_000);
      const threads = PeerThreads.ofProcess(Deno.pid);
      const busy = new ProcessorSet();
      threads?.addProcessors(busy);
      busy.has(currentProcessor());
      moveAwayFrom(ofOne);
      threads?.close();
      // With one processor there is nowhere to move to.
      assert(plan.end() > 0 || call === "schedSetAffinity", call);
    }
  }
});
