/** Endpoints that are added and removed while they are served. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { delay } from "@std/async";
import fc from "fast-check";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  statusName,
} from "../../../device/iommu/driver_requests.ts";
import { ApiError } from "../../../device/api/mod.ts";
import { translate } from "../../../device/api/translate.ts";
import { descriptorsClosed, UnixListener } from "../../../device/host/mod.ts";
import { until } from "../../until.ts";
import { mappingsOf, openDescriptors } from "../host/host_state.ts";
import { HotplugWorld, type PluggedFrontEnd } from "../hotplug_world.ts";
import { EchoBackEnd, type EchoOptions } from "./relay/echo_back_end.ts";
import { ScriptedBackEnd } from "./proxy/scripted_back_end.ts";
import { IOVA } from "./relay/relay_world.ts";

/** Where requests and answers are, guest-physical. */
const READ_AT = 0x20_0000;
const WRITE_AT = 0x40_0000;
const RNG = 0x18;
const RELAY = 0x28;
/** A time that no test waits for. */
const LONG = 60_000;

/** Makes a request of 100 bytes available, with room for as many. */
function send({ queue, bytes }: PluggedFrontEnd, at = 0): void {
  bytes.fill(7, READ_AT + at, READ_AT + at + 100);
  queue.driver.begin();
  queue.driver.addReadable(IOVA + READ_AT + at, 100);
  queue.driver.addWritable(IOVA + WRITE_AT + at, 100);
  queue.driver.commit();
  queue.kick();
}

/** A relay with a front end and a back end of the test. */
async function relayed(
  world: HotplugWorld,
  echo: EchoOptions = {},
  more = "",
): Promise<[PluggedFrontEnd, EchoBackEnd]> {
  using listener = UnixListener.listen(world.path("be"));
  try {
    const sockets = `listen=${world.path("fe")},backend=${world.path("be")}`;
    world.control.add("--endpoint-relay", `${RELAY},${sockets}${more}`);
    world.attach(RELAY);
    const backEnd = await EchoBackEnd.accept(listener, echo);
    world.owns(backEnd);
    return [await world.plug("fe"), backEnd];
  } finally {
    listener.close();
  }
}

Deno.test("what is added while others are served is served, and what is removed is gone", async () => {
  const descriptors = openDescriptors().length;
  const mappings = mappingsOf("").length;
  {
    await using world = new HotplugWorld();
    world.control.add("--endpoint-device", `rng:0x10,socket=${world.path("stays")}`);
    world.attach(0x10);
    world.attach(RNG);
    const stays = await world.plug("stays");
    const between = openDescriptors().length;
    for (let i = 0; i < 5; i++) {
      world.control.add("--endpoint-device", `rng:${RNG},socket=${world.path("rng")}`);
      const plugged = await world.plug("rng");
      send(plugged);
      assert(await plugged.queue.reap(), "the new one is served");
      const removal = world.endpoints.remove(RNG, LONG)!;
      await until(() => removal.isDone, "it is removed");
      assertEquals(removal.isDrained, true);
      assertEquals(world.endpoints.at(RNG), undefined);
      assertEquals(await Deno.lstat(world.path("rng")).catch(() => "gone"), "gone");
      plugged.frontEnd.close();
      send(stays);
      assert(await stays.queue.reap(), "the other one is served");
    }
    await descriptorsClosed();
    assertEquals(openDescriptors().length, between);
    assertEquals(world.warnings, []);
  }
  await descriptorsClosed();
  assertEquals([openDescriptors().length, mappingsOf("").length], [descriptors, mappings]);
});

Deno.test("a ring of a served device can be translated by its number", async () => {
  await using world = new HotplugWorld();
  world.control.add("--endpoint-device", `rng:${RNG},socket=${world.path("rng")}`);
  world.attach(RNG);
  const query = new URLSearchParams({ endpoint: String(RNG), ring: "0" });
  assertThrows(() => translate(world.context, query), ApiError, "its guest has not placed it");
  const { queue } = await world.plug("rng");
  const answer = translate(world.context, query);
  // Its guest has mapped all its memory from IOVA on.
  assert("phys" in answer);
  assertEquals(answer.phys, `0x${queue.driver.descriptors.toString(16)}`);
  const other = new URLSearchParams({ endpoint: String(RNG), ring: "1" });
  assertThrows(() => translate(world.context, other), ApiError, "There is no ring 1");
});

Deno.test("the guest's attachment outlives the device: DETACH is answered, and ATTACH again", async () => {
  await using world = new HotplugWorld();
  world.control.add("--endpoint-device", `rng:${RNG},socket=${world.path("rng")}`);
  world.attach(RNG);
  const { frontEnd } = await world.plug("rng");
  const removal = world.endpoints.remove(RNG, LONG)!;
  await until(() => removal.isDone, "it is removed");
  frontEnd.close();
  const { guest } = world;
  function status(request: Uint8Array): string {
    const { bytes, length } = guest.request(request, 4);
    return statusName(bytes, length);
  }
  // 5.13.6.4.2: an endpoint that exists and is attached is detached; whether a device is there makes no difference.
  const page = { virtStart: 0x1000n, virtEnd: 0x1fffn, physStart: 0n, flags: 3 };
  assertEquals(status(mapRequest({ domain: RNG, ...page })), "OK");
  assertEquals(status(detachRequest(RNG, RNG)), "OK");
  assertEquals(status(detachRequest(RNG, RNG)), "INVAL", "it is attached to nothing");
  assertEquals(status(attachRequest(7, RNG)), "OK");
  world.control.add("--endpoint-device", `rng:${RNG},socket=${world.path("rng")}`);
  assertEquals(status(detachRequest(7, RNG)), "OK");
});

Deno.test("the image of a disk that is removed is closed", async () => {
  await using world = new HotplugWorld();
  const image = world.image("disk");
  const option = `blk:${RNG},socket=${world.path("blk")},file=${image}`;
  for (let i = 0; i < 3; i++) {
    world.control.add("--endpoint-device", option);
    world.attach(RNG);
    const { frontEnd } = await world.plug("blk");
    const removal = world.endpoints.remove(RNG, LONG)!;
    await until(() => removal.isDone, "it is removed");
    assertEquals(removal.isDrained, true);
    frontEnd.close();
  }
});

Deno.test("a relay that is removed waits for what its back end has, then has it stop its rings", async () => {
  const mapped = mappingsOf("viommu-relay");
  await using world = new HotplugWorld();
  const [plugged, backEnd] = await relayed(world, { holds: true });
  send(plugged);
  await until(() => backEnd.held.length === 1, "the back end has it");
  const removal = world.endpoints.remove(RELAY, LONG)!;
  await until(() => world.endpoints.at(RELAY)!.isLeaving, "it leaves");
  send(plugged, 4096);
  // A front end that comes now finds no socket.
  assertEquals(await Deno.lstat(world.path("fe")).catch(() => "gone"), "gone");
  await delay(20);
  assertEquals([removal.isDone, backEnd.held.length], [false, 1], "the second was not taken");
  assertEquals(world.endpoints.setNotifications(true), false, "nor does it keep the loop awake");
  const stopped: (readonly [number, boolean])[] = [];
  backEnd.device.onStopped = (index) => stopped.push([index, removal.isDone]);
  backEnd.answerAll();
  assert(await plugged.queue.reap(), "the first is answered");
  assertEquals(plugged.bytes[WRITE_AT], 8);
  await until(() => removal.isDone, "it is removed");
  assertEquals(removal.isDrained, true);
  await backEnd.closed;
  assertEquals(stopped[0], [0, false], "the back end was asked to stop the ring, and waited for");
  assertEquals([backEnd.seen.length, await plugged.queue.reap(20)], [1, false]);
  assertEquals(mappingsOf("viommu-relay"), mapped);
});

Deno.test("what does not drain in its time is cut, and the log says so", async () => {
  const descriptors = openDescriptors().length;
  {
    await using world = new HotplugWorld();
    const [plugged, backEnd] = await relayed(world, { holds: true });
    send(plugged);
    await until(() => backEnd.held.length === 1, "the back end has it");
    const removal = world.endpoints.remove(RELAY, LONG)!;
    await until(() => world.endpoints.at(RELAY)!.isLeaving, "it leaves");
    // A second one with a shorter time is the same removal.
    assertEquals(world.endpoints.remove(RELAY, 30) === removal, true);
    await until(() => removal.isDone, "it is removed");
    assertEquals(removal.isDrained, false);
    await backEnd.closed;
    assert(
      world.warnings.some((line) =>
        line.includes("Removed relay 00:05.0 before all that it had taken was done")
      ),
      world.warnings.join("\n"),
    );
    assertEquals(world.endpoints.all, []);
    plugged.frontEnd.close();
  }
  await descriptorsClosed();
  assertEquals(openDescriptors().length, descriptors);
});

Deno.test("buffers that wait for packets are not waited for, and the back end's end ends the drain", async () => {
  await using world = new HotplugWorld();
  const [plugged, backEnd] = await relayed(world, { holds: true }, ",type=net");
  send(plugged);
  await until(() => backEnd.held.length === 1, "the back end has it");
  const removal = world.endpoints.remove(RELAY, LONG)!;
  await until(() => removal.isDone, "it is removed");
  assertEquals(removal.isDrained, true);
  plugged.frontEnd.close();

  const [again, dying] = await relayed(world, { holds: true });
  send(again);
  await until(() => dying.held.length === 1, "the back end has it");
  const second = world.endpoints.remove(RELAY, LONG)!;
  await until(() => world.endpoints.at(RELAY)!.isLeaving, "it leaves");
  await dying[Symbol.asyncDispose]();
  await until(() => second.isDone, "it is removed");
  assertEquals(second.isDrained, false, "its request is lost");
});

Deno.test("a proxy that is removed has its back end forget its translations first", async () => {
  await using world = new HotplugWorld();
  using listener = UnixListener.listen(world.path("be"));
  const sockets = `listen=${world.path("fe")},backend=${world.path("be")}`;
  world.control.add("--endpoint-proxy", `${RELAY},${sockets}`);
  world.attach(RELAY);
  const plugging = world.plugBare("fe");
  const backEnd = await ScriptedBackEnd.accept(listener);
  world.owns(backEnd);
  world.owns(listener);
  await plugging;
  await until(() => backEnd.entries.length > 0, "the back end has translations");
  backEnd.manner = "when told";
  const removal = world.endpoints.remove(RELAY, LONG)!;
  await until(() => backEnd.owed > 0, "it is told to forget");
  assertEquals([removal.isDone, backEnd.told.at(-1)], [false, "invalidate 0+all"]);
  // A miss meanwhile is no fault of the guest's, and gets no translation.
  backEnd.miss(IOVA, 1);
  await backEnd.asked();
  const { counters } = world.endpoints.proxies[0];
  assertEquals([counters.faults, backEnd.told.at(-1)], [0, "invalidate 0+all"]);
  backEnd.acknowledge();
  await until(() => removal.isDone, "it is removed");
  assertEquals(removal.isDrained, true);
  await backEnd.closed;
  assertEquals(world.guest.device.iotlbListeners.waiting, 0);
  assertEquals(world.guest.device.iotlbListeners.hasRemotes, false);
});

Deno.test("a proxy whose back end goes instead of forgetting is removed, and not drained", async () => {
  await using world = new HotplugWorld();
  using listener = UnixListener.listen(world.path("be"));
  const sockets = `listen=${world.path("fe")},backend=${world.path("be")}`;
  world.control.add("--endpoint-proxy", `${RELAY},${sockets}`);
  world.attach(RELAY);
  const plugging = world.plugBare("fe");
  const backEnd = await ScriptedBackEnd.accept(listener);
  world.owns(backEnd);
  await plugging;
  await until(() => backEnd.entries.length > 0, "the back end has translations");
  backEnd.manner = "silent";
  const removal = world.endpoints.remove(RELAY, LONG)!;
  await until(() => backEnd.owed > 0, "it is told to forget");
  backEnd[Symbol.dispose]();
  await until(() => removal.isDone, "it is removed");
  assertEquals(removal.isDrained, false);
});

Deno.test("the end of serve ends removals that are under way", async () => {
  const descriptors = openDescriptors().length;
  {
    await using world = new HotplugWorld();
    const [plugged, backEnd] = await relayed(world, { holds: true });
    send(plugged);
    await until(() => backEnd.held.length === 1, "the back end has it");
    const removal = world.endpoints.remove(RELAY, LONG)!;
    await until(() => world.endpoints.at(RELAY)!.isLeaving, "it leaves");
    await world.stop();
    assertEquals([removal.isDone, removal.isDrained], [true, false]);
    await backEnd.closed;
  }
  await descriptorsClosed();
  assertEquals(openDescriptors().length, descriptors);
});

/** What a generated history does. */
type Step = "add" | "plug" | "send" | "unplug" | "remove";

Deno.test("whatever is added, plugged, used and removed in whatever order, nothing is left over", async () => {
  const descriptors = openDescriptors().length;
  const steps = fc.array(
    fc.tuple(
      fc.constantFrom<Step>("add", "plug", "send", "unplug", "remove"),
      fc.nat(2),
      fc.boolean(),
    ),
    { minLength: 5, maxLength: 40 },
  );
  await fc.assert(
    fc.asyncProperty(steps, async (steps) => {
      await using world = new HotplugWorld();
      const image = world.image("disk", 4096);
      const plugged = new Map<number, PluggedFrontEnd>();
      for (const [step, id, isPatient] of steps) {
        const socket = `socket=${world.path(`s${id}`)}`;
        const there = world.endpoints.at(id);
        const frontEnd = plugged.get(id);
        if (step === "add" && there === undefined) {
          const isDisk = id === 0;
          const text = isDisk ? `blk:${id},${socket},file=${image}` : `rng:${id},${socket}`;
          world.control.add("--endpoint-device", text);
          world.attach(id);
        } else if (step === "plug" && there?.isLeaving === false && frontEnd === undefined) {
          plugged.set(id, await world.plug(`s${id}`));
        } else if (step === "send" && frontEnd !== undefined) {
          send(frontEnd);
        } else if (step === "unplug" && frontEnd !== undefined) {
          frontEnd.frontEnd.close();
          plugged.delete(id);
          await until(() => there?.connected !== true, "it is gone");
        } else if (step === "remove" && there !== undefined) {
          const removal = world.endpoints.remove(id, isPatient ? LONG : 0)!;
          await until(() => removal.isDone, "it is removed");
          frontEnd?.frontEnd.close();
          plugged.delete(id);
        }
      }
      assertEquals(world.lines.filter((line) => line.includes("error: ")), []);
    }),
    { numRuns: 15 },
  );
  await descriptorsClosed();
  assertEquals(openDescriptors().length, descriptors);
});
