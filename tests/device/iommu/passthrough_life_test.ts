/** Devices of the host when sessions end, queues pause, guests go on and states are loaded. */
import { assert, assertEquals } from "@std/assert";
import { IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { Turn } from "../../../device/iommu/turn.ts";
import { EBUSY } from "../../../iommufd/mod.ts";
import { ENOMEM, OK, READ } from "../../../pagetable/mod.ts";
import type { Queue } from "../../../vring/mod.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import { FakeHost } from "./fake_host.ts";
import { A, B, C, RAM, World } from "./passthrough_world.ts";

/** A queue that is not looked into. */
const QUEUE = {} as Queue;

/** Guest RAM of as many pages, from page 0 on. */
function ram(pages: number) {
  return { guestAddress: 0, size: pages * 4096, buffer: new ArrayBuffer(pages * 4096), offset: 0 };
}

Deno.test("the end of a session blocks every device before anything else is done", () => {
  const host = new FakeHost();
  const device = new IommuDevice({ ...DEFAULT_OPTIONS, bypass: true });
  const [a, c] = [host.device(A, 1), host.device(C, 2)];
  for (const each of [a, c]) assertEquals(device.passthrough.add(each), OK);
  const memory = ram(16);
  device.memoryAdded(memory);
  device.queueBegins(0, "new");
  device.queueStarted(0, QUEUE);
  assertEquals(device.iommu.attach(1, A, false), OK);
  assertEquals(device.iommu.map(device.iommu.domain(1)!, 5, 7, 3, 3), OK);
  assertEquals([a.reaches(5), c.reaches(5)], [3, 5]);
  host.calls.length = 0;
  device.sessionEnds();
  assertEquals(host.calls, ["block 8", "block 24"], "also the one that the VMM had attached");
  device.queueStopped(0);
  device.memoryRemoved(memory);
  device.disconnected();
  assertEquals(host.calls.slice(2), ["memory- 0", "destroy"]);
  // The next session: a VMM may have attached them again, until it is known whose life it is.
  host.attach(a, "vmm");
  device.memoryAdded(memory);
  device.queueBegins(0, "used");
  assertEquals(a.reaches(5), 5);
  device.queueStarted(0, QUEUE);
  assertEquals([a.reaches(5), c.reaches(5)], [-1, -1], "it goes on, and all that it had is lost");
  // What embeds the device may tell it of the end alone.
  device.reset("system");
  assertEquals([a.reaches(5), c.reaches(5)], [5, 5]);
  device.disconnected();
  assertEquals([a.reaches(5), c.reaches(5)], [-1, -1]);
  device.queueBegins(0, "new");
  device.queueStarted(0, QUEUE);
  assertEquals([a.reaches(5), c.reaches(5)], [5, 5], "a new guest");
  device.close();
  assertEquals([a.reaches(5), c.reaches(5), host.tables.size], [-1, -1, 0]);
});

Deno.test("a front end that stops its queues and starts them again changes nothing", () => {
  using world = new World(true);
  assertEquals([world.attach(1, C), world.map(1, 5, 7)], ["OK", "OK"]);
  world.calls();
  world.device.queueStopped(0);
  world.device.queueStopped(1);
  assertEquals(world.of(C).reaches(5), 7);
  world.device.queueStarted(0, QUEUE);
  assertEquals([world.calls(), world.of(C).reaches(5)], ["", 7]);
});

Deno.test("a device that is reset while the request queue is stopped is let through, and goes back with the queue", () => {
  using world = new World(true);
  const { hosts } = world.device;
  assertEquals([world.attach(1, C), world.map(1, 5, 7)], ["OK", "OK"]);
  const device = world.of(C);
  device.isBusMaster = false;
  hosts.letFirmwarePass();
  assertEquals([hosts.mayBeReset, device.reaches(5)], [false, 7], "not while the queue runs");
  world.device.queueStopped(0);
  device.isBusMaster = true;
  hosts.letFirmwarePass();
  assertEquals([hosts.mayBeReset, device.reaches(5)], [true, 7], "a pause");
  device.isBusMaster = false;
  hosts.letFirmwarePass();
  device.isBusMaster = true;
  assertEquals([hosts.mayBeReset, device.reaches(5)], [false, 5], "firmware");
  world.device.queueStarted(0, QUEUE);
  assertEquals(device.reaches(5), 7, "it was a pause, after all");
});

Deno.test("a device that is reset is let through only with bypass, and only with the whole of its group", () => {
  for (const bypass of [true, false]) {
    using world = new World(bypass);
    assertEquals([world.attach(1, A), world.attach(1, B), world.map(1, 5, 7)], ["OK", "OK", "OK"]);
    world.device.queueStopped(0);
    world.of(A).isBusMaster = false;
    world.device.hosts.letFirmwarePass();
    assertEquals(world.of(A).reaches(5), 7);
    world.of(B).isBusMaster = false;
    world.device.hosts.letFirmwarePass();
    assertEquals([A, B].map((each) => world.of(each).reaches(5)), bypass ? [5, 5] : [7, 7]);
  }
});

Deno.test("a guest that goes on with what is not known has its devices blocked, whichever queue shows it", () => {
  using world = new World(true);
  assertEquals(world.of(C).reaches(5), 5);
  world.device.queueBegins(1, "used");
  assertEquals([world.calls(), world.of(C).reaches(5)], ["block 8, block 16, block 24", -1]);
});

Deno.test("a doubtful reset blocks what is attached to nothing, and takes nothing from what is attached", () => {
  using world = new World(true);
  assertEquals([world.attach(1, C), world.map(1, 5, 7)], ["OK", "OK"]);
  world.calls();
  world.device.reset("doubtful");
  assertEquals(world.calls(), "block 8, block 16");
  assertEquals([world.of(C).reaches(5), world.device.walk(C, 5, READ).frame], [7, 7]);
  world.device.reset("system");
  assertEquals([5, 5, 5], [A, B, C].map((id) => world.of(id).reaches(5)));
});

Deno.test("a state that is loaded maps everything first, and attaches each device once", () => {
  using source = new World();
  assertEquals([source.attach(1, A), source.attach(1, C)], ["OK", "OK"]);
  for (let i = 0; i < 2000; i++) {
    assertEquals(source.device.iommu.map(source.device.iommu.domain(1)!, i, i, i % RAM, 3), OK);
  }
  assertEquals(source.attach(3, 32), "OK");
  const bytes = source.device.saveState();
  const host = new FakeHost();
  const device = new IommuDevice(DEFAULT_OPTIONS);
  const devices = [A, B, C].map((id) => host.device(id, id === C ? 2 : 1));
  for (const each of devices) assertEquals(device.passthrough.add(each), OK);
  device.memoryAdded(ram(RAM));
  host.next = (call) => {
    if (call === "attach") assertEquals([...host.tables][0].wholes.size, 2000);
    return OK;
  };
  let result: string | undefined = "under way";
  device.beginLoad(bytes, (error) => result = error);
  const turn = new Turn();
  const late = host.device(32, 3);
  while (device.messagesWait) {
    assertEquals(device.passthrough.add(late), EBUSY);
    turn.begin(0, 0);
    device.work(turn);
  }
  assertEquals(result, undefined);
  assertEquals(host.calls.filter((call) => !call.startsWith("memory")), [
    "create",
    ...["attach 8", "attach 16", "attach 24"],
  ]);
  device.queueBegins(0, "loaded");
  device.queueStarted(0, QUEUE);
  assertEquals(devices.map((each) => each.reaches(1999)), [1999 % RAM, 1999 % RAM, 1999 % RAM]);
  // One that a device cannot take is refused, and the device is as it was.
  host.next = (call) => call === "attach" ? ENOMEM : OK;
  const error = device.loadState(bytes);
  assert(error?.includes("a device of the host cannot join domain 1: NOMEM"), error);
  assertEquals(devices.map((each) => each.reaches(1999)), [-1, -1, -1]);
  host.next = () => OK;
  assertEquals(device.loadState(bytes), undefined);
  assertEquals(devices.map((each) => each.reaches(1999)), [1999 % RAM, 1999 % RAM, 1999 % RAM]);
  device.close();
  assertEquals(host.tables.size, 0);
});

Deno.test("a state whose memory comes after it is built again before the guest goes on", () => {
  using source = new World(true);
  assertEquals([source.attach(1, C), source.map(1, 5, 7)], ["OK", "OK"]);
  const host = new FakeHost();
  const device = new IommuDevice(DEFAULT_OPTIONS);
  const c = host.device(C, 2);
  assertEquals(device.passthrough.add(c), OK);
  assertEquals(device.loadState(source.device.saveState()), undefined);
  device.memoryAdded(ram(RAM));
  while (device.queueBegins(0, "loaded")?.isLater) device.work(new Turn());
  device.queueStarted(0, QUEUE);
  assertEquals([c.reaches(5), device.walk(C, 5, READ).frame], [7, 7]);
  device.close();
  assertEquals(host.tables.size, 0);
});

Deno.test("a state that parts a host group is refused, and where nothing can be restored all is blocked", () => {
  using source = new World(true, []);
  assertEquals([source.attach(1, A), source.attach(2, B)], ["OK", "OK"]);
  using world = new World(true);
  assertEquals([world.attach(1, A), world.map(1, 5, 7)], ["OK", "OK"]);
  const bytes = source.device.saveState();
  assertEquals(
    world.device.loadState(bytes),
    "Cannot load the state: endpoint 16 cannot join domain 2: UNSUPP",
  );
  assertEquals([world.of(A).reaches(5), world.of(C).reaches(5)], [7, 5], "as it was");
  world.host.next = (call) => call === "attach" ? ENOMEM : OK;
  const error = world.device.loadState(bytes);
  assert(error?.endsWith("every endpoint is blocked"), error);
  assertEquals([world.of(A).reaches(5), world.of(C).reaches(5)], [-1, -1]);
});
