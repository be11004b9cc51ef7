import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Chain, GuestMemory, readMemory, writeMemory } from "../../vring/mod.ts";
import { BASE, memoryOf, regionOf, ringIn, type RingOptions } from "./ring_fixture.ts";

/** One turn of a driver and a device: what is added, how much of it is served and taken back. */
interface Turn {
  readonly chains: readonly {
    readonly readable: readonly number[];
    readonly writable: readonly number[];
    readonly indirect: boolean;
  }[];
  readonly serve: number;
  readonly reversed: boolean;
  readonly reap: number;
}

const BUFFER_PAGES = 64;
const TABLE = 8;

const turns: fc.Arbitrary<readonly Turn[]> = fc.array(
  fc.record({
    chains: fc.array(
      fc.record({
        readable: fc.array(fc.nat(300), { maxLength: 4 }),
        writable: fc.array(fc.nat(300), { maxLength: 4 }),
        indirect: fc.boolean(),
      }).filter(({ readable, writable }) => readable.length + writable.length > 0),
      { maxLength: 6 },
    ),
    serve: fc.nat(8),
    reversed: fc.boolean(),
    reap: fc.nat(8),
  }),
  { minLength: 1, maxLength: 30 },
);

const options: fc.Arbitrary<RingOptions> = fc.record({
  size: fc.constantFrom(2, 4, 8, 16, 64),
  eventIndex: fc.boolean(),
  indirect: fc.boolean(),
  indirectLength: fc.constant(TABLE),
});

/** Memory whose regions have odd sizes, so that rings, tables and buffers lie across their borders. */
function patchwork(): GuestMemory {
  const memory = new GuestMemory();
  const end = BASE + (BUFFER_PAGES + 8) * 4096;
  let at = BASE + 8 * 4096;
  for (let i = 0; at < end; i++) {
    const size = Math.min(1000 + 8 * (i % 50), end - at);
    assertEquals(memory.add(regionOf(at, size)), undefined);
    at += size;
  }
  assertEquals(memory.add(regionOf(BASE, 8 * 4096)), undefined);
  return memory;
}

function pattern(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 7 + seed * 13) & 0xff);
}

/** A chain in the driver's hands: what it sent, where the answer is to be found. */
interface Sent {
  readonly request: Uint8Array;
  readonly answerAt: number;
  readonly room: number;
}

Deno.test("every chain arrives whole, once and in order, and every answer comes back", () => {
  fc.assert(fc.property(options, turns, (options, turns) => {
    const ring = ringIn(patchwork(), options);
    const { driver, queue, memory } = ring;
    const sent = new Map<number, Sent>();
    const offered: number[] = [];
    const taken: Chain[] = [];
    const answered = new Map<number, Uint8Array>();
    let buffer = BASE + 8 * 4096;
    let seed = 0;
    for (const turn of turns) {
      for (const { readable, writable, indirect } of turn.chains) {
        const requestLength = readable.reduce((sum, length) => sum + length, 0);
        const room = writable.reduce((sum, length) => sum + length, 0);
        if (readable.length + writable.length > options.size) continue;
        // Buffers go round in the memory; nothing in flight is that old.
        if (buffer + requestLength + room > BASE + (BUFFER_PAGES + 8) * 4096) break;
        const request = pattern(requestLength, seed++);
        assert(writeMemory(memory, buffer, request, 0, requestLength));
        driver.begin();
        let at = buffer;
        for (const length of readable) {
          driver.addReadable(at, length);
          at += length;
        }
        const answerAt = at;
        for (const length of writable) {
          driver.addWritable(at, length);
          at += length;
        }
        const token = driver.commit(options.indirect && indirect);
        if (token < 0) break;
        assert(!sent.has(token), "a token in flight is not given twice");
        sent.set(token, { request, answerAt, room });
        offered.push(token);
        buffer = at;
      }
      driver.kick();
      for (let i = 0; i < turn.serve; i++) {
        const chain = new Chain(1);
        if (!queue.next(chain)) break;
        assertEquals(chain.head, offered.shift(), "chains come in the order offered");
        taken.push(chain);
      }
      assertEquals(queue.describeError(), "");
      if (turn.reversed) taken.reverse();
      for (const chain of taken) {
        const { request, room } = sent.get(chain.head)!;
        assertEquals([chain.readableLength, chain.writableLength], [request.length, room]);
        const got = new Uint8Array(request.length);
        assertEquals(chain.gather(got), request.length);
        assertEquals(got, request);
        const answer = pattern(Math.floor(room * 0.75), seed++);
        assertEquals(chain.scatter(0, answer), answer.length);
        answered.set(chain.head, answer);
        queue.complete(chain, answer.length);
      }
      taken.length = 0;
      queue.publish();
      queue.needsSignal();
      for (let i = 0; i < turn.reap && driver.reap(); i++) {
        const { answerAt } = sent.get(driver.token)!;
        const answer = answered.get(driver.token)!;
        assertEquals(driver.usedLength, answer.length);
        const got = new Uint8Array(answer.length);
        assert(readMemory(memory, answerAt, got, 0, got.length));
        assertEquals(got, answer);
        sent.delete(driver.token);
        answered.delete(driver.token);
      }
      assertEquals(driver.inFlight, sent.size);
    }
    const chain = new Chain();
    while (queue.next(chain)) queue.complete(chain, 0);
    queue.publish();
    while (driver.reap()) sent.delete(driver.token);
    assertEquals([sent.size, driver.inFlight, driver.free], [0, 0, options.size]);
  }));
});

/**
 * Runs a ring with random bursts and compares each "notify?" and "signal?" with a model that knows
 * which single index the other side asked for, counting without wrap-around.
 */
function checkSuppression(eventIndex: boolean): void {
  const step = fc.record({
    add: fc.nat(6),
    take: fc.nat(6),
    askNotify: fc.constantFrom("on", "off", "leave"),
    askSignal: fc.constantFrom("on", "off", "leave"),
  });
  fc.assert(
    fc.property(
      fc.integer({ min: 65536 - 40, max: 65536 }),
      fc.array(step, { minLength: 20, maxLength: 60 }),
      (start, steps) => {
        const ring = ringIn(memoryOf(0x8000), { size: 8, eventIndex });
        const { driver, queue, buffers } = ring;
        const chain = new Chain();
        function add(): boolean {
          driver.begin();
          driver.addWritable(buffers, 4);
          return driver.commit() >= 0;
        }
        // Both sides are brought close to the wrap of the 16-bit indices.
        for (let i = 0; i < start; i++) {
          assert(add());
          driver.kick();
          assert(queue.next(chain));
          queue.complete(chain, 4);
          queue.publish();
          assert(driver.reap());
        }
        assertEquals(queue.enableNotifications(), false);
        assertEquals(driver.enableSignals(), false);
        queue.needsSignal();

        let available = start;
        let used = start;
        // The chain (counting from 0) whose becoming available, or used, is asked to be told; -1 for none.
        let notifyAt = start;
        let signalAt = start;
        for (const { add: adds, take, askNotify, askSignal } of steps) {
          const before = available;
          for (let i = 0; i < adds && add(); i++) available++;
          const wanted = eventIndex
            ? notifyAt >= before && notifyAt < available
            : notifyAt >= 0 && available > before;
          assertEquals(driver.kick(), wanted, "notification");

          const usedBefore = used;
          for (let i = 0; i < take && queue.next(chain); i++) {
            queue.complete(chain, 4);
            queue.publish();
            used++;
          }
          const signal = eventIndex
            ? signalAt >= usedBefore && signalAt < used
            : signalAt >= 0 && used > usedBefore;
          assertEquals(queue.needsSignal(), signal, "signal");
          while (driver.reap());

          if (askNotify === "on") {
            assertEquals(queue.enableNotifications(), available !== used, "work waiting");
            notifyAt = used;
          } else if (askNotify === "off") {
            queue.disableNotifications();
            notifyAt = -1;
          }
          if (askSignal === "on") {
            assertEquals(driver.enableSignals(), false);
            signalAt = used;
          } else if (askSignal === "off") {
            driver.disableSignals();
            signalAt = -1;
          }
        }
      },
    ),
    { numRuns: 30 },
  );
}

Deno.test("2.7.7.1, 2.7.10.1: notifications and signals follow the event index exactly, across its wrap", () => {
  checkSuppression(true);
});

Deno.test("2.7.7, 2.7.10: notifications and signals follow the flags", () => {
  checkSuppression(false);
});
