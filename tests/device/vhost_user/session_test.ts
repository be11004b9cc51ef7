import { assertEquals } from "@std/assert";
import { mappingsOf, openDescriptors } from "../host/host_state.ts";
import { connect, disconnect } from "./serving.ts";

Deno.test("a front end negotiates, hands over memory, runs a queue and leaves nothing behind", async () => {
  const mapped = mappingsOf("guest-memory");
  const before = openDescriptors();
  await using session = connect();
  const { frontEnd, device } = session;
  await frontEnd.negotiate();
  const memory = await frontEnd.addMemory(0, 1 << 20);
  const queue = await frontEnd.startQueue(0, { size: 8, address: 0 });
  const bytes = new Uint8Array(memory.mapping.buffer);
  bytes.set([1, 2, 3, 4], 0x10000);
  for (let i = 0; i < 100; i++) {
    queue.driver.begin();
    queue.driver.addReadable(0x10000, 4);
    queue.driver.addWritable(0x20000, 4);
    queue.driver.commit();
    queue.kick();
    assertEquals(await queue.reap(), true);
    assertEquals(queue.driver.usedLength, 4);
    assertEquals([...bytes.subarray(0x20000, 0x20004)], [4, 3, 2, 1]);
  }
  assertEquals(await frontEnd.stopQueue(queue), 100);
  await disconnect(session);
  assertEquals(device.takeEvents(), [
    "features 30000005 1",
    "memory+ 0 100000",
    "start 0",
    "stop 0",
    "memory- 0 100000",
    "reset system",
  ]);
  assertEquals(openDescriptors(), before);
  assertEquals(mappingsOf("guest-memory"), mapped);
});
