/**
 * A packed virtqueue driven from both sides: a driver that sends requests, and a device that answers each with its bytes reversed.
 *
 * ```sh
 * deno run examples/virtqueue.ts
 * ```
 *
 * @module
 */
import { Chain, GuestMemory, PackedDriverQueue, PackedQueue } from "../vring/mod.ts";

/** Guest addresses of the ring, of the requests and of the answers. */
const RING = 0x0;
const REQUESTS = 0x4000;
const ANSWERS = 0x8000;
/** Bytes that each request and answer may take. */
const SLOT = 64;

const ram = new Uint8Array(1 << 16);
const memory = new GuestMemory();
memory.add({ guestAddress: 0, size: ram.length, buffer: ram.buffer, offset: 0 });
const driver = new PackedDriverQueue({ space: memory, address: RING, size: 8 });
const queue = new PackedQueue(memory);
queue.configure(driver);

// The driver makes three chains available: each has a part to read and a part to write.
const words = ["attach", "map", "unmap"];
for (const [i, word] of words.entries()) {
  ram.set(new TextEncoder().encode(word), REQUESTS + i * SLOT);
  driver.begin();
  driver.addReadable(REQUESTS + i * SLOT, word.length);
  driver.addWritable(ANSWERS + i * SLOT, SLOT);
  driver.commit();
}
driver.kick();

// The device takes each chain, copies the request out once, and writes the answer.
const chain = new Chain();
const request = new Uint8Array(SLOT);
while (queue.next(chain)) {
  const length = chain.gather(request, 0, SLOT);
  const answer = request.slice(0, length).reverse();
  queue.complete(chain, chain.scatter(0, answer, 0, length));
}
// The driver sees no answer before this.
queue.publish();

while (driver.reap()) {
  console.log(`${driver.usedLength} bytes written`);
}
for (const [i, word] of words.entries()) {
  const answer = ram.subarray(ANSWERS + i * SLOT, ANSWERS + i * SLOT + word.length);
  console.log(`${word}: ${new TextDecoder().decode(answer)}`);
}
