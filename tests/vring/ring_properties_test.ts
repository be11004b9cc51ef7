import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Chain, GuestMemory, readMemory, writeMemory } from "../../vring/mod.ts";
import { BASE, memoryOf, regionOf, ringIn, type RingOptions, runs } from "./ring_fixture.ts";

/** One turn of a driver and a device: what is added, how much of it is served and taken back. */
interface Turn {
  readonly chains: readonly {
    readonly readable: readonly number[];
    readonly writable: readonly number[];
    readonly indirect: boolean;
  }[];
  readonly take: number;
  readonly finish: number;
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
    take: fc.nat(8),
    finish: fc.nat(8),
    reversed: fc.boolean(),
    reap: fc.nat(8),
  }),
  { minLength: 1, maxLength: 30 },
);

function optionsFor(packed: boolean): fc.Arbitrary<RingOptions> {
  return fc.record({
    packed: fc.constant(packed),
    size: packed ? fc.constantFrom(1, 2, 3, 7, 8, 50) : fc.constantFrom(1, 2, 4, 8, 16, 64),
    eventIndex: fc.boolean(),
    indirect: fc.boolean(),
    indirectLength: fc.constant(TABLE),
    inOrder: fc.boolean(),
    inflight: fc.boolean(),
  });
}

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

function checkRoundTrips(packed: boolean): void {
  fc.assert(
    fc.property(optionsFor(packed), turns, (options, turns) => {
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
        for (let i = 0; i < turn.take; i++) {
          const chain = new Chain(1);
          if (!queue.next(chain)) break;
          assertEquals(chain.head, offered.shift(), "chains come in the order offered");
          taken.push(chain);
        }
        assertEquals(queue.describeError(), "");
        for (let i = 0; i < turn.finish && taken.length > 0; i++) {
          const chain = (turn.reversed ? taken.pop() : taken.shift())!;
          const { request, room } = sent.get(chain.head)!;
          assertEquals([chain.readableLength, chain.writableLength], [request.length, room]);
          const got = new Uint8Array(request.length);
          assertEquals(chain.gather(got), request.length);
          assertEquals(got, request);
          const answer = pattern(seed % 3 === 0 ? Math.floor(room * 0.75) : room, seed++);
          assertEquals(chain.scatter(0, answer), answer.length);
          answered.set(chain.head, answer);
          queue.complete(chain, answer.length);
        }
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
      for (const chain of taken) queue.complete(chain, 0);
      const chain = new Chain();
      while (queue.next(chain)) queue.complete(chain, 0);
      queue.publish();
      while (driver.reap()) sent.delete(driver.token);
      assertEquals([sent.size, driver.inFlight, driver.free], [0, 0, options.size]);
    }),
    { numRuns: runs(50, 1000) },
  );
}

for (const packed of [false, true]) {
  const layout = packed ? "packed" : "split";
  Deno.test(`${layout}: every chain arrives whole, once, in order, and its answer comes back`, () => {
    checkRoundTrips(packed);
  });
}

/**
 * Runs a ring with random bursts and compares each "notify?" and "signal?" with a model that knows
 * which single index the other side asked for, counting without wrap-around.
 */
function checkSuppression(packed: boolean, eventIndex: boolean): void {
  // An index asked for comes round again: in a split ring after 2^16, in a packed one after two laps.
  const period = packed ? 16 : 65536;
  function passes(wish: number, from: number, to: number): boolean {
    if (wish < 0 || from === to) return false;
    if (!eventIndex) return true;
    return wish + Math.ceil((from - wish) / period) * period < to;
  }
  const step = fc.record({
    add: fc.nat(6),
    take: fc.nat(6),
    askNotify: fc.constantFrom("on", "off", "leave"),
    askSignal: fc.constantFrom("on", "off", "leave"),
  });
  fc.assert(
    fc.property(
      packed ? fc.nat(40) : fc.integer({ min: 65536 - 40, max: 65536 }),
      fc.array(step, { minLength: 20, maxLength: 60 }),
      (start, steps) => {
        const ring = ringIn(memoryOf(0x8000), { packed, size: 8, eventIndex });
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
          const wanted = passes(notifyAt, before, available);
          assertEquals(driver.kick(), wanted, "notification");

          const usedBefore = used;
          for (let i = 0; i < take && queue.next(chain); i++) {
            queue.complete(chain, 4);
            queue.publish();
            used++;
          }
          const signal = passes(signalAt, usedBefore, used);
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
    { numRuns: runs(12, 300) },
  );
}

Deno.test("split, 2.7.7.1, 2.7.10.1: events follow the index exactly, across its wrap", () => {
  checkSuppression(false, true);
});

Deno.test("split, 2.7.7, 2.7.10: events follow the flags", () => {
  checkSuppression(false, false);
});

Deno.test("packed, 2.8.10: events follow the named descriptor exactly, across laps", () => {
  checkSuppression(true, true);
});

Deno.test("packed, 2.8.10: events follow the flags", () => {
  checkSuppression(true, false);
});
