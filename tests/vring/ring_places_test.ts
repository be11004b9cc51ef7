import { assert, assertEquals } from "@std/assert";
import {
  type AddressSpace,
  Chain,
  DirtyLog,
  type GuestMemory,
  PackedDriverQueue,
  PackedQueue,
  type QueueSetup,
  RING_OK,
  SplitDriverQueue,
  SplitQueue,
} from "../../vring/mod.ts";
import { RING_MEMORY } from "../../vring/ring_error.ts";
import { BASE, memoryOf, ringIn } from "./ring_fixture.ts";

const IOVA = 0x7_0000_0000;
const PAGE = 4096;

/**
 * An endpoint's view of guest memory: consecutive I/O virtual pages that lie anywhere, in reverse order
 * here, each mapped or not.
 */
class ReversedPages implements AddressSpace {
  generation = 1;
  bytes: Uint8Array = new Uint8Array(0);
  data: DataView = new DataView(this.bytes.buffer);
  offset = 0;
  readonly writes: number[] = [];
  readonly unmapped = new Set<number>();
  readonly #memory: GuestMemory;
  readonly #pages: number;

  constructor(memory: GuestMemory, pages: number) {
    this.#memory = memory;
    this.#pages = pages;
  }

  resolve(address: number, length: number, write: boolean): number {
    const page = Math.floor((address - IOVA) / PAGE);
    if (!(page >= 0 && page < this.#pages) || this.unmapped.has(page)) return 0;
    const into = address % PAGE;
    const physical = BASE + (this.#pages - 1 - page) * PAGE + into;
    const found = this.#memory.resolve(physical, Math.min(length, PAGE - into), write);
    this.bytes = this.#memory.bytes;
    this.data = this.#memory.data;
    this.offset = this.#memory.offset;
    return found;
  }

  written(address: number, length: number): void {
    this.writes.push(address, length);
  }
}

for (const packed of [false, true]) {
  const layout = packed ? "packed" : "split";

  Deno.test(`${layout}: a ring behind a translation may have its pages anywhere`, () => {
    const pages = 16;
    const memory = memoryOf(pages * PAGE);
    const space = new ReversedPages(memory, pages);
    const driverSetup = { space, address: IOVA + 16, size: 512, eventIndex: true };
    const driver = packed ? new PackedDriverQueue(driverSetup) : new SplitDriverQueue(driverSetup);
    const queue = packed ? new PackedQueue(space) : new SplitQueue(space);
    const setup: QueueSetup = {
      size: 512,
      descriptors: driver.descriptors,
      driverArea: driver.driverArea,
      deviceArea: driver.deviceArea,
      eventIndex: true,
    };
    assertEquals(queue.configure(setup), RING_OK, queue.describeError());
    const chain = new Chain();
    const buffer = IOVA + 14 * PAGE;
    for (let i = 0; i < 1500; i++) {
      driver.begin();
      driver.addReadable(buffer, i % 100);
      driver.addWritable(buffer + PAGE - 4, 8);
      const token = driver.commit();
      driver.kick();
      assert(queue.next(chain), queue.describeError());
      assertEquals([chain.readableLength, chain.writableLength], [i % 100, 8]);
      assertEquals(chain.scatter(0, new Uint8Array(8)), 8);
      queue.complete(chain, i);
      queue.publish();
      assert(driver.reap());
      assertEquals([driver.token, driver.usedLength], [token, i]);
    }
    // A page of the ring is unmapped: the queue stops before it touches the ring again.
    space.unmapped.add(1);
    space.generation++;
    assertEquals(queue.hasWork(), false);
    assertEquals(queue.error, RING_MEMORY);
  });

  Deno.test(`${layout}: writes to the ring and to buffers are in the dirty log, nothing else`, () => {
    const memory = memoryOf(0x10_0000);
    const { driver, queue, buffers } = ringIn(memory, { packed, size: 8 });
    const bits = new Uint8Array(256);
    const log = new DirtyLog(bits);
    const ringLog = 0x40_0000;
    memory.dirtyLog = log;
    queue.logWrites(log, ringLog);
    const chain = new Chain();
    driver.begin();
    driver.addReadable(buffers, 4);
    driver.addWritable(buffers + 3 * PAGE - 2, 4);
    driver.addWritable(buffers + 8 * PAGE, 4);
    driver.commit();
    driver.kick();
    assert(queue.next(chain));
    assertEquals(chain.gather(new Uint8Array(4)), 4);
    assertEquals(bits.every((byte) => byte === 0), true, "reading leaves no trace");
    assertEquals(chain.scatter(0, new Uint8Array(4)), 4);
    queue.complete(chain, 4);
    queue.publish();
    const first = buffers / PAGE;
    const expected = [first + 2, first + 3];
    // A split ring's used part is noted under its log address, a packed ring's descriptors where they lie.
    if (packed) expected.push(BASE / PAGE);
    else expected.push(ringLog / PAGE);
    assertEquals(dirtyPages(bits), expected.sort((a, b) => a - b));

    bits.fill(0);
    queue.disableNotifications();
    assertEquals(dirtyPages(bits), [ringLog / PAGE], "the device's own part");
    bits.fill(0);
    queue.logWrites(null, 0);
    memory.dirtyLog = null;
    queue.enableNotifications();
    assertEquals(dirtyPages(bits), []);
  });
}

function dirtyPages(bits: Uint8Array): number[] {
  const pages: number[] = [];
  for (let page = 0; page < bits.length * 8; page++) {
    if ((bits[page >> 3] & 1 << (page & 7)) !== 0) pages.push(page);
  }
  return pages;
}
