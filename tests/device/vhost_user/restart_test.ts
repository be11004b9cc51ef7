/**
 * Which restarts of a ring are a new life of the device, and which go on: no front end says so.
 */
import { assertEquals } from "@std/assert";
import type { FrontEndQueue } from "../../../device/vhost_user/mod.ts";
import { connect, type Session } from "./serving.ts";

async function started(options = {}): Promise<[Session, FrontEndQueue]> {
  const session = connect(options);
  const { frontEnd, device } = session;
  await frontEnd.negotiate();
  const memory = await frontEnd.addMemory(0, 1 << 20);
  new Uint8Array(memory.mapping.buffer).fill(0);
  const queue = await frontEnd.startQueue(0, { size: 8, address: 0 });
  device.takeEvents();
  return [session, queue];
}

async function request(queue: FrontEndQueue, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    queue.driver.begin();
    queue.driver.addReadable(0x8000, 4);
    queue.driver.addWritable(0x9000, 4);
    queue.driver.commit();
    queue.kick();
    assertEquals(await queue.reap(), true);
  }
}

/** Clears the ring as a new driver does. */
function newDriver(session: Session): void {
  for (const { buffer } of session.frontEnd.memory.regions) new Uint8Array(buffer).fill(0);
}

for (const packed of [false, true]) {
  const options = packed ? { acceptHigh: 0b101 } : {};
  const layout = packed ? "packed" : "split";

  Deno.test(`a stop and a start at the same base go on (${layout})`, async () => {
    const [session, queue] = await started(options);
    await using _ = session;
    await request(queue, 3);
    const base = await session.frontEnd.stopQueue(queue);
    await session.frontEnd.resumeQueue(queue, base);
    await request(queue, 3);
    assertEquals(session.device.takeEvents(), ["stop 0", "start 0"]);
  });

  Deno.test(`a start at the beginning after a stop elsewhere is a reboot (${layout})`, async () => {
    const [session, queue] = await started(options);
    await using _ = session;
    await request(queue, 3);
    await session.frontEnd.stopQueue(queue);
    newDriver(session);
    await session.frontEnd.startQueue(0, { size: 8, address: 0 });
    assertEquals(session.device.takeEvents(), ["stop 0", "reset system", "start 0"]);
  });
}

Deno.test("a ring that was not used tells nothing, and with the config space read it may be a new guest's", async () => {
  const [session, queue] = await started();
  await using _ = session;
  const { frontEnd, device } = session;
  await frontEnd.resumeQueue(queue, await frontEnd.stopQueue(queue));
  assertEquals(device.takeEvents(), ["stop 0", "start 0"]);
  const base = await frontEnd.stopQueue(queue);
  await frontEnd.readConfig(0, 40);
  await frontEnd.resumeQueue(queue, base);
  assertEquals(device.takeEvents(), ["stop 0", "reset doubtful", "start 0"]);
});

Deno.test("a config space read while a queue runs tells nothing", async () => {
  const [session, queue] = await started();
  await using _ = session;
  const { frontEnd, device } = session;
  await frontEnd.readConfig(0, 40);
  await frontEnd.resumeQueue(queue, await frontEnd.stopQueue(queue));
  assertEquals(device.takeEvents(), ["stop 0", "start 0"]);
});

Deno.test("a ring whose index has come to the beginning by itself goes on", async () => {
  await using session = connect();
  const { frontEnd, device } = session;
  await frontEnd.negotiate();
  const memory = await frontEnd.addMemory(0, 1 << 20);
  const queue = await frontEnd.startQueue(0, { size: 8, address: 0 });
  await frontEnd.stopQueue(queue);
  // A guest that has come as far as 65535 everywhere.
  const words = new Uint16Array(memory.mapping.buffer);
  words[queue.driver.driverArea / 2 + 1] = 0xffff;
  words[queue.driver.deviceArea / 2 + 1] = 0xffff;
  await frontEnd.resumeQueue(queue, 0xffff);
  words[queue.driver.driverArea / 2 + 2 + 7] = 0;
  const data = new DataView(memory.mapping.buffer);
  data.setUint32(queue.driver.descriptors + 8, 0, true);
  words[queue.driver.driverArea / 2 + 1] = 0;
  queue.kickEvent.signal();
  while (words[queue.driver.deviceArea / 2 + 1] !== 0) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  device.takeEvents();
  assertEquals(await frontEnd.stopQueue(queue), 0);
  await frontEnd.resumeQueue(queue, 0);
  assertEquals(device.takeEvents(), ["stop 0", "start 0"]);
});

Deno.test("of several rings that start anew, the first brings the one reset", async () => {
  const [session, queue] = await started();
  await using _ = session;
  const { frontEnd, device } = session;
  const events = await frontEnd.startQueue(1, { size: 8, address: 0x4000 });
  await request(queue, 2);
  device.takeEvents();
  // As QEMU does on a reboot of the guest.
  for (const each of [queue, events]) await frontEnd.enableQueue(each, false);
  for (const each of [queue, events]) await frontEnd.stopQueue(each);
  await frontEnd.readConfig(0, 40);
  newDriver(session);
  await frontEnd.startQueue(0, { size: 8, address: 0 });
  await frontEnd.startQueue(1, { size: 8, address: 0x4000 });
  assertEquals(device.takeEvents(), ["stop 0", "stop 1", "reset system", "start 0", "start 1"]);
});

Deno.test("disabling and enabling a ring goes on where it was", async () => {
  const [session, queue] = await started();
  await using _ = session;
  await request(queue, 5);
  await session.frontEnd.enableQueue(queue, false);
  await session.frontEnd.enableQueue(queue, true);
  await request(queue, 5);
  assertEquals(session.device.takeEvents(), ["stop 0", "start 0"]);
  assertEquals(await session.frontEnd.stopQueue(queue), 10);
});

Deno.test("RESET_DEVICE stops the rings, and what starts then is no further reset", async () => {
  const [session, queue] = await started();
  await using _ = session;
  await request(queue, 2);
  await session.frontEnd.resetDevice();
  assertEquals(session.device.takeEvents(), ["stop 0", "reset device"]);
  newDriver(session);
  await session.frontEnd.startQueue(0, { size: 8, address: 0 });
  assertEquals(session.device.takeEvents(), ["start 0"]);
});
