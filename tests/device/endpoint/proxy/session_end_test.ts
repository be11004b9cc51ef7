/** How sessions between a front end and a proxied back end begin and end. */
import { assert, assertEquals } from "@std/assert";
import { delay } from "@std/async";
import { UnixListener, UnixStream } from "../../../../device/host/mod.ts";
import { Request } from "../../../../device/vhost_user/mod.ts";
import { openDescriptors } from "../../host/host_state.ts";
import { attach, invalidate, isClosed, map, ProxyWorld, unmap, update } from "./proxy_world.ts";
import { ScriptedBackEnd } from "./scripted_back_end.ts";

/** Time limit of a back end that does not answer: long enough for one that does, on a busy machine. */
const PATIENCE_MS = 500;

Deno.test("a back end that stalls is disconnected in a bounded time, and the guest goes on", async () => {
  await using world = await ProxyWorld.start({ patience: PATIENCE_MS });
  const [frontEnd, backEnd] = await world.session();
  await world.request(attach(), map(10, 1));
  backEnd.manner = "silent";
  const began = performance.now();
  assertEquals(await world.request(unmap(10)), [0]);
  const took = performance.now() - began;
  assert(took >= PATIENCE_MS, `${took} ms`);
  assert(await isClosed(frontEnd));
  assertEquals(world.counters.timeouts, 1);
  assert(world.warnings.some((line) => line.includes("did not acknowledge within 500 ms")));
  assertEquals(await world.request(map(10, 1), unmap(10)), [0, 0]);
});

Deno.test("a stalled back end holds up a reset no longer, though nothing else is served meanwhile", async () => {
  await using world = await ProxyWorld.start({ patience: PATIENCE_MS });
  const [, backEnd] = await world.session();
  await world.request(attach(), map(10, 1));
  assertEquals(world.counters.timeouts, 0);
  backEnd.manner = "silent";
  const began = performance.now();
  await world.driver.resetDevice();
  const took = performance.now() - began;
  assert(took >= PATIENCE_MS, `${took} ms`);
  assertEquals([world.counters.timeouts, world.device.iotlbListeners.waiting], [1, 0]);
});

Deno.test("a back end that vanishes while an answer waits for it, and a front end that does", async () => {
  for (const side of ["back end", "front end"]) {
    await using world = await ProxyWorld.start();
    const [frontEnd, backEnd] = await world.session();
    await world.request(attach(), map(10, 1));
    backEnd.manner = "silent";
    world.send(unmap(10));
    await world.held(backEnd);
    if (side === "back end") backEnd[Symbol.dispose]();
    else frontEnd.close();
    assertEquals(await world.answers(1), 1, side);
    await backEnd.closed;
    assertEquals(world.proxies[0].connected, false);
    const lines = side === "back end" ? world.warnings : world.lines;
    assert(lines.some((line) => line.includes(`the ${side} is gone`)));
    assertEquals(world.warnings.length, side === "back end" ? 1 : 0);
  }
});

Deno.test("a back end that restarts: the front end is disconnected, comes again, and gets everything", async () => {
  for (const backEndConnects of [false, true]) {
    await using world = await ProxyWorld.start({ backEndConnects });
    const [frontEnd, backEnd] = await world.session();
    await world.request(attach(), map(10, 1));
    backEnd[Symbol.dispose]();
    assert(await isClosed(frontEnd));
    frontEnd.close();
    await world.request(map(20, 2));
    const [, again] = await world.session();
    assertEquals(again.takeTold(), [update(10, 1), update(20, 2)]);
    await world.request(unmap(10));
    assertEquals(again.takeTold(), [invalidate(10)]);
    assertEquals(world.counters.sessions, 2);
  }
});

Deno.test("a front end that comes first waits for a back end to listen, and is served then", async () => {
  await using world = await ProxyWorld.start();
  world.listeners[0]!.close();
  const frontEnd = world.connect();
  const negotiated = frontEnd.negotiate();
  await delay(300);
  assertEquals(world.proxies[0].connected, false);
  world.listeners[0] = UnixListener.listen(world.backEndPaths[0]);
  using backEnd = await ScriptedBackEnd.accept(world.listeners[0]);
  await negotiated;
  assert(backEnd.messages.length > 0);
  frontEnd.close();
  await backEnd.closed;
});

Deno.test("a side that waits alone may go again, and a second one is refused", async () => {
  await using world = await ProxyWorld.start({ backEndConnects: true });
  const alone = UnixStream.connect(world.backEndPaths[0]);
  await world.quiet();
  alone.close();
  await world.quiet();
  const first = world.connect();
  await world.quiet();
  first.close();
  await world.quiet();
  const [frontEnd, backEnd] = await world.join();
  await frontEnd.negotiate();
  const second = world.connect();
  assert(await isClosed(second));
  using other = new ScriptedBackEnd(UnixStream.connect(world.backEndPaths[0]));
  await other.closed;
  assertEquals(backEnd.isOpen, true);
  assertEquals(world.warnings.filter((line) => line.includes("Refused a second")).length, 2);
  assertEquals((await frontEnd.ask(Request.GET_QUEUE_NUM)).getUint32(0, true), 2);
});

Deno.test("nothing is left open after many sessions of all kinds", async () => {
  const before = openDescriptors();
  {
    await using world = await ProxyWorld.start();
    for (let i = 0; i < 5; i++) {
      const [frontEnd, backEnd] = await world.session();
      if (i % 2 === 0) frontEnd.close();
      else backEnd[Symbol.dispose]();
      await backEnd.closed;
      frontEnd.close();
      await world.quiet();
    }
  }
  assertEquals(openDescriptors().length, before.length);
});
