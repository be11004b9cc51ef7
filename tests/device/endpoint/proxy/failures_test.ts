/** What a front end or a back end of a proxy can do to its own session, and not to the guest. */
import { assert, assertEquals } from "@std/assert";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  unmapRequest,
} from "../../../../device/iommu/driver_requests.ts";
import { libc } from "../../../../device/host/libc.ts";
import { Descriptor, UnixListener, UnixStream } from "../../../../device/host/mod.ts";
import { Request } from "../../../../device/vhost_user/mod.ts";
import { until } from "../../../until.ts";
import { failAsPlanned, FailurePlan } from "../../host/failing_libc.ts";
import { datagramSocket, temporaryPath } from "../../host/host_state.ts";
import { attach, ENDPOINT, map, ProxyWorld, unmap } from "./proxy_world.ts";
import { ScriptedBackEnd } from "./scripted_back_end.ts";

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const EPERM = 1;

/** Attaches, maps and unmaps as the guest, which the proxy's session is told of if there is one. */
async function serveGuest(world: ProxyWorld): Promise<void> {
  const virtStart = 0x10000n;
  const virtEnd = 0x10fffn;
  assertEquals(
    await world.request(
      attachRequest(1, ENDPOINT),
      mapRequest({ domain: 1, virtStart, virtEnd, physStart: 0x5000n, flags: 3 }),
      unmapRequest(1, virtStart, virtEnd),
    ),
    [0, 0, 0],
  );
}

Deno.test("a channel that is no connected socket ends the session, and the guest goes on", async () => {
  const path = temporaryPath();
  using listener = UnixListener.listen(path);
  await using world = await ProxyWorld.start();
  const unconnected = new Descriptor(libc().socket(AF_UNIX, SOCK_STREAM, 0));
  for (const socket of [unconnected, listener.descriptor]) {
    const [frontEnd, backEnd] = await world.join();
    await frontEnd.negotiate();
    await frontEnd.tell(Request.SET_BACKEND_REQ_FD, new Uint8Array(0), [socket]).catch(() => {});
    await backEnd.closed;
    await serveGuest(world);
  }
  unconnected.close();
  const over = "came without a unix stream socket";
  assertEquals(world.warnings.filter((line) => line.includes(over)).length, 2);
  await world.session();
});

Deno.test("a front end that hands over the end of its own connection ends the session", async () => {
  await using world = await ProxyWorld.start();
  const [frontEnd, backEnd] = await world.join();
  await frontEnd.negotiate();
  const own = frontEnd.connection.stream.descriptor;
  await frontEnd.tell(Request.SET_BACKEND_REQ_FD, new Uint8Array(0), [own]).catch(() => {});
  await backEnd.closed;
  assert(world.warnings.some((line) => line.includes("an end of its connection")));
  await serveGuest(world);
  await world.session();
});

Deno.test("a back end that takes no descriptors is left, and the guest goes on", async () => {
  await using world = await ProxyWorld.start();
  const [frontEnd, backEnd] = await world.join();
  await frontEnd.negotiate();
  const library = Deno.dlopen("libc.so.6", {
    setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  });
  const SOL_SOCKET = 1;
  const SO_PASSRIGHTS = 83;
  const { number } = backEnd.connection.stream.descriptor;
  const off = new Int32Array([0]);
  const isKnown = library.symbols.setsockopt(number, SOL_SOCKET, SO_PASSRIGHTS, off, 4) === 0;
  library.close();
  // Linux before 6.16 takes what comes.
  if (!isKnown) return;
  await frontEnd.addMemory(0, 1 << 20).catch(() => {});
  await backEnd.closed;
  assert(
    world.warnings.some((line) => line.includes("sendmsg failed: EPERM")),
    `${world.warnings}`,
  );
  await serveGuest(world);
  await world.session();
});

Deno.test("whatever is in the place of a back end's socket, the guest is served and the back end waited for", async () => {
  await using world = await ProxyWorld.start();
  const [path] = world.backEndPaths;
  world.listeners[0]!.close();
  const frontEnd = world.connect();
  const places: [string, string, () => Promise<void> | void, () => void][] = [
    ["a loop", "ELOOP", () => Deno.symlink(path, path), () => {}],
    ["a file", "ECONNREFUSED", () => Deno.writeTextFile(path, ""), () => {}],
  ];
  const datagrams: Descriptor[] = [];
  places.push([
    "a datagram socket",
    "EPROTOTYPE",
    () => void datagrams.push(datagramSocket(path)),
    () => datagrams[0].close(),
  ]);
  for (const [, code, put, take] of places) {
    await put();
    if (code !== "ECONNREFUSED") {
      await until(() => world.lines.some((line) => line.includes(code)), `it is told of ${code}`);
    }
    await serveGuest(world);
    take();
    await Deno.remove(path);
  }
  world.listeners[0] = UnixListener.listen(path);
  const backEnd = await ScriptedBackEnd.accept(world.listeners[0]);
  await frontEnd.negotiate();
  backEnd[Symbol.dispose]();
});

Deno.test("a front end whose back end is not there, and that goes, is no hindrance to the next", async () => {
  await using world = await ProxyWorld.start();
  world.listeners[0]!.close();
  for (let i = 0; i < 3; i++) {
    const stream = UnixStream.connect(world.paths[0]);
    const tell = "waits for the back end";
    await until(
      () => world.lines.filter((line) => line.includes(tell)).length > i,
      "the front end waits",
    );
    stream.close();
  }
  await serveGuest(world);
});

Deno.test("a back end that cannot be told of a change is left, and the guest has its answer", async () => {
  await using world = await ProxyWorld.start({ bypass: true });
  const virtStart = 0x10000n;
  const virtEnd = 0x10fffn;
  const map = mapRequest({ domain: 1, virtStart, virtEnd, physStart: 0x5000n, flags: 3 });
  const plan = new FailurePlan();
  for (const request of [map, unmapRequest(1, virtStart, virtEnd), detachRequest(1, ENDPOINT)]) {
    const [, backEnd] = await world.session();
    const setUp = request === map ? [] : [map];
    await world.request(attachRequest(1, ENDPOINT), ...setUp);
    {
      using _failing = failAsPlanned(plan);
      // While a request is served, nothing is sent but what the back end is told.
      plan.fail("sendmsg", EPERM, 4);
      assertEquals(await world.request(request), [0]);
      assert(plan.end() > 0);
    }
    await backEnd.closed;
    assertEquals(world.device.iotlbListeners.waiting, 0);
    await world.request(unmapRequest(1, 0n, 2n ** 64n - 1n), detachRequest(1, ENDPOINT));
  }
  assertEquals(
    world.warnings.filter((line) => line.includes("sendmsg failed: EPERM")).length,
    3,
    `${world.warnings}`,
  );
});

Deno.test("SIGTERM does not wait for a back end that owes an acknowledgement", async () => {
  await using world = await ProxyWorld.start({ patience: 10_000 });
  const [, backEnd] = await world.session();
  assertEquals(await world.request(attach(), map(10, 1)), [0, 0]);
  backEnd.manner = "silent";
  world.send(unmap(10));
  await world.held(backEnd);
  await world.stop();
  assertEquals(world.counters.timeouts, 0, "its time was not up");
  assertEquals(await world.answers(1, 20), 0, "nothing says that it has let go");
});
