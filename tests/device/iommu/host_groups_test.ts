/** Devices of one host group, which always reach the same, and what that means for the endpoints that they are behind. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { ENOMEM, EOPNOTSUPP, OK, READ } from "../../../pagetable/mod.ts";
import { FakeHost } from "./fake_host.ts";
import { A, B, C, World } from "./passthrough_world.ts";

/** What an endpoint's device reaches at a page, and what a walk says; -1 for nothing. */
function reached(world: World, endpoint: number, page: number): readonly number[] {
  const walk = world.device.walk(endpoint, page, READ);
  return [world.of(endpoint).reaches(page), walk.ok ? walk.frame : -1];
}

Deno.test("an ATTACH that would part devices of one host group is refused with UNSUPP, and says so", () => {
  using world = new World();
  assertEquals([world.attach(1, A), world.map(1, 5, 7)], ["OK", "OK"]);
  world.calls();
  for (const flags of [0, 1]) {
    assertEquals(world.attach(2, B, flags), "UNSUPP");
    assertEquals(world.reason, "a device of the same host group is attached to another domain");
    assertEquals([world.calls(), world.device.iommu.domain(2)], ["", undefined]);
  }
  assertEquals(world.attach(1, B), "OK");
  // Neither may leave the other in this way.
  assertEquals([world.attach(2, A), world.attach(2, B)], ["UNSUPP", "UNSUPP"]);
  assertEquals([reached(world, A, 5), reached(world, B, 5)], [[7, 7], [7, 7]]);
  assertEquals(world.attach(2, C), "OK", "another group");
});

Deno.test("devices of one host group may be in several bypass domains, which lead to the same", () => {
  using world = new World();
  // Linux makes a bypass domain for each of its own groups (iommu=pt).
  assertEquals([world.attach(1, A, 1), world.attach(2, B, 1)], ["OK", "OK"]);
  assertEquals([reached(world, A, 5), reached(world, B, 5)], [[5, 5], [5, 5]]);
  assertEquals(world.attach(3, A), "UNSUPP");
  assertEquals([reached(world, A, 5), reached(world, B, 5)], [[5, 5], [5, 5]]);
  // D4 holds for them as for others.
  assertEquals(world.detach(1, A), "OK");
  assertEquals([reached(world, A, 5), reached(world, B, 5)], [[-1, -1], [-1, -1]]);
  assertEquals(world.attach(2, B, 1), "OK");
  assertEquals([reached(world, A, 5), reached(world, B, 5)], [[5, -1], [5, 5]]);
  assertEquals([world.attach(4, A, 1), reached(world, A, 5)], ["OK", [5, 5]]);
});

Deno.test("a device whose endpoint is attached to nothing goes with the others of its group", () => {
  using world = new World(true);
  assertEquals([world.attach(1, A), world.map(1, 5, 7)], ["OK", "OK"]);
  // Its endpoint is in bypass, but what the group is attached to decides.
  assertEquals(reached(world, B, 5), [7, 5]);
  assertEquals(world.attach(1, B), "OK");
  assertEquals(reached(world, B, 5), [7, 7]);
});

Deno.test("D4: when a device of a group is detached, all are blocked, until an ATTACH names one that is attached", () => {
  using world = new World(true);
  assertEquals([world.attach(1, A), world.attach(1, B), world.map(1, 5, 7)], ["OK", "OK", "OK"]);
  world.calls();
  assertEquals(world.detach(1, A), "OK");
  assertEquals(world.calls(), "block 8, block 16");
  // A is in bypass for the guest, and so it would be alone.
  assertEquals([reached(world, A, 5), reached(world, B, 5)], [[-1, 5], [-1, -1]]);
  assertEquals(world.warnings, [
    "Endpoint 00:02.0 is blocked until it is attached again: " +
    "its device and others of host group 1 can only be attached together",
  ]);
  assertEquals([...world.device.iommu.domain(1)!.endpoints].map(({ id }) => id), [B]);
  assertEquals(world.map(1, 6, 8), "OK", "the domain goes on");
  assertEquals(reached(world, B, 6), [-1, -1]);
  assertEquals(world.attach(1, B), "OK");
  assertEquals([reached(world, B, 5), reached(world, B, 6)], [[7, 7], [8, 8]]);
  assertEquals(world.attach(1, A), "OK");
  // An ATTACH of the other one brings both back, too.
  assertEquals([world.detach(1, B), world.attach(1, B)], ["OK", "OK"]);
  assertEquals([reached(world, A, 5), reached(world, B, 5)], [[7, 7], [7, 7]]);
  assertEquals([world.detach(1, B), world.detach(1, A)], ["OK", "OK"]);
  assertEquals([reached(world, A, 5), reached(world, B, 5)], [[5, 5], [5, 5]]);
});

Deno.test("an ATTACH that cannot bring a blocked device back is refused, and it stays blocked", () => {
  using world = new World();
  assertEquals([world.attach(1, A), world.attach(1, B), world.map(1, 5, 7)], ["OK", "OK", "OK"]);
  assertEquals(world.detach(1, A), "OK");
  world.failNext("attach", ENOMEM);
  assertEquals(world.attach(1, B), "NOMEM");
  assertEquals(reached(world, B, 5), [-1, -1]);
  assertEquals(world.attach(1, B), "OK");
  assertEquals(reached(world, B, 5), [7, 7]);
});

Deno.test("a group that cannot be moved as a whole goes back, or is blocked if it cannot", () => {
  using world = new World();
  assertEquals([world.attach(1, A), world.map(1, 5, 7)], ["OK", "OK"]);
  // A alone is attached, and goes first; then B fails.
  let attaches = 0;
  world.host.next = (call) => call === "attach" && ++attaches === 2 ? ENOMEM : OK;
  assertEquals(world.attach(2, A), "NOMEM");
  assertEquals([reached(world, A, 5), world.device.hosts.placeOf(A)], [[7, 7], "domain"]);
  attaches = 0;
  world.host.next = (call) => call === "attach" && ++attaches >= 2 ? ENOMEM : OK;
  assertEquals(world.attach(2, A), "NOMEM");
  assertEquals([reached(world, A, 5), world.device.hosts.placeOf(A)], [[-1, -1], "blocked"]);
  assert(world.warnings[0].startsWith("Endpoint 00:01.0 is blocked"));
  world.host.next = () => OK;
  assertEquals([world.attach(1, A), reached(world, A, 5)], ["OK", [7, 7]]);
});

Deno.test("a group whose endpoints are attached to nothing bypasses only if each of them may", () => {
  using world = new World(true);
  assertEquals([world.attach(1, A), world.attach(1, B)], ["OK", "OK"]);
  // A guest goes on of which nothing is known: what it gives back may bypass.
  world.device.queueBegins(0, "used");
  world.device.iommu.detachAll();
  assertEquals([reached(world, A, 5), reached(world, B, 5)], [[-1, -1], [-1, -1]]);
  assertEquals(world.detach(1, A), "OK");
  assertEquals([reached(world, A, 5), reached(world, B, 5)], [[-1, 5], [-1, -1]]);
  assertEquals(world.detach(1, B), "OK");
  assertEquals([reached(world, A, 5), reached(world, B, 5)], [[5, 5], [5, 5]]);
});

Deno.test("a device that comes to a group goes where the group is, or is refused", () => {
  using world = new World(false, [A]);
  assertEquals([world.attach(1, A), world.map(1, 5, 7)], ["OK", "OK"]);
  assertEquals(world.attach(2, B), "OK", "it has no device so far");
  assertEquals(world.device.passthrough.add(world.of(B)), EOPNOTSUPP);
  assertEquals(world.host.tables.size, 1);
  assertEquals(world.detach(2, B), "OK");
  assertEquals(world.device.passthrough.add(world.of(B)), OK);
  assertEquals(world.attach(1, B), "OK");
  assertEquals(world.detach(1, B), "OK");
  assertThrows(() => world.device.passthrough.add(world.of(B)), RangeError, "second device");
  const other = new FakeHost().device(32, 1);
  assertThrows(() => world.device.passthrough.add(other), RangeError, "another host IOMMU");
});

Deno.test("an endpoint that was blocked with its group is in its domain again when its device goes", () => {
  using world = new World();
  assertEquals([world.attach(1, A), world.attach(1, B), world.map(1, 5, 7)], ["OK", "OK", "OK"]);
  assertEquals(world.detach(1, A), "OK");
  assertEquals(world.device.walk(B, 5, READ).ok, false);
  assertEquals(world.device.passthrough.remove(B), OK);
  assertEquals([world.device.walk(B, 5, READ).frame, world.of(B).reaches(5)], [7, -1]);
});
