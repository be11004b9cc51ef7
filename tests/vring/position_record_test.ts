/**
 * A queue that goes on after the end of its process, which may come at any store into the ring: the driver gets each answer
 * once, in order, and the ring is the same as if nothing had happened.
 */
import { assert, assertEquals } from "@std/assert";
import {
  Chain,
  DirtyLog,
  PackedQueue,
  POSITION_RECORD_BYTES,
  PositionRecord,
  type Queue,
  RING_OK,
  SplitQueue,
} from "../../vring/mod.ts";
import { PackedInflight } from "../../vring/packed_inflight.ts";
import { RING_RECORD } from "../../vring/ring_error.ts";
import { RingWords16, RingWords32 } from "../../vring/ring_words.ts";
import { SplitInflight } from "../../vring/split_inflight.ts";
import { CrashPoints } from "../crash_points.ts";
import { isLong } from "../long_mode.ts";
import { memoryOf, type Ring, ringIn, type RingOptions } from "./ring_fixture.ts";

const SIZE = 9;
/** Chains of each shape in turn: readable buffers, writable buffers, bytes written. */
const SHAPES = [[1, 1, 8], [1, 1, 4], [2, 1, 8], [1, 2, 0]] as const;

const KINDS: readonly RingOptions[] = [false, true].flatMap((packed) =>
  [false, true].flatMap((inOrder) =>
    [false, true].map((inflight) => ({ packed, inOrder, inflight, size: packed ? SIZE : 8 }))
  )
);

function nameOf({ packed, inOrder, inflight }: RingOptions): string {
  return `${packed ? "packed" : "split"}${inOrder ? ", in order" : ""}` +
    (inflight ? ", with a record of chains in flight" : "");
}

/** The answers to the first chains, in order. */
function answersOf(count: number): readonly string[] {
  return Array.from(
    { length: count },
    (_, number) => `${number}: ${SHAPES[number % SHAPES.length][2]}`,
  );
}

/** A guest with its ring, and the device processes that serve it one after another. */
class World {
  readonly ring: Ring;
  readonly words = new Int32Array(POSITION_RECORD_BYTES / 4);
  /** Numbers of the chains that were answered, and used lengths. */
  readonly answers: string[] = [];
  queue: Queue;
  sent = 0;
  readonly #tokens = new Map<number, number>();

  constructor(readonly options: RingOptions) {
    this.ring = ringIn(memoryOf(0x8000), options);
    this.queue = this.#start(false);
  }

  /** The ring's bytes. */
  get bytes(): Uint8Array {
    const [{ buffer, offset }] = this.ring.memory.regions;
    return new Uint8Array(buffer, offset, this.ring.driver.byteLength).slice();
  }

  /** The driver makes chains available. */
  send(count: number): void {
    const { driver, memory, buffers } = this.ring;
    for (let i = 0; i < count; i++) {
      const number = this.sent++;
      const [readable, writable] = SHAPES[number % SHAPES.length];
      const at = buffers + number % 16 * 64;
      memory.resolve(at, 64, true);
      memory.data.setUint32(memory.offset, number, true);
      memory.data.setUint32(memory.offset + 32, 0xffffffff, true);
      driver.begin();
      for (let part = 0; part < readable; part++) driver.addReadable(at + part * 8, 8);
      for (let part = 0; part < writable; part++) {
        driver.addWritable(at + 32 + part * 8, 8 / writable);
      }
      const token = driver.commit();
      assert(token >= 0);
      this.#tokens.set(token, number);
    }
    driver.kick();
  }

  /** The device serves all there is, and shows it at the end. */
  serve(): void {
    const chain = new Chain();
    const request = new Uint8Array(8);
    while (this.queue.next(chain)) {
      assert(chain.gather(request) === 8);
      const number = new DataView(request.buffer).getUint32(0, true);
      assertEquals(chain.position, number + 1, "a position names the same chain for ever");
      this.queue.complete(chain, SHAPES[number % SHAPES.length][2]);
    }
    assertEquals(this.queue.describeError(), "");
    this.queue.publish();
  }

  /** Another process goes on. */
  restart(): void {
    this.queue = this.#start(true);
  }

  /** The driver takes the answers that it can see. */
  reap(): void {
    const { driver } = this.ring;
    while (driver.reap()) {
      this.answers.push(`${this.#tokens.get(driver.token)}: ${driver.usedLength}`);
    }
  }

  #start(goesOn: boolean): Queue {
    const { ring: { memory, setup }, options } = this;
    const queue = options.packed ? new PackedQueue(memory) : new SplitQueue(memory);
    const record = new PositionRecord(this.words);
    assertEquals(
      queue.configure({ ...setup, record, goesOn, base: goesOn ? 77 : undefined! }),
      RING_OK,
    );
    return queue;
  }
}

/** Chains made available at once, one number a turn of the driver. */
const TURNS = [1, 2, 1, 3, 2, 2, 3, 1, 1, 2];

function points(): CrashPoints {
  return new CrashPoints(
    [PositionRecord.prototype, "intend", "shown", "take", "goOn"],
    [RingWords16.prototype, "storeOrdered"],
    [RingWords32.prototype, "store", "storeOrdered"],
    [SplitQueue.prototype, "next", "complete", "publish"],
    [PackedQueue.prototype, "next", "complete", "publish"],
    [SplitInflight.prototype, "beforePublish", "afterPublish"],
    [PackedInflight.prototype, "beforePublish", "afterPublish"],
  );
}

for (const options of KINDS) {
  Deno.test(`${nameOf(options)}: a queue goes on wherever its process ended`, () => {
    using crash = points();
    const unbroken = new World(options);
    const passed: number[] = [];
    for (const count of TURNS) {
      unbroken.send(count);
      crash.arm();
      unbroken.serve();
      passed.push(crash.passed);
      unbroken.reap();
    }
    assertEquals(unbroken.answers, answersOf(TURNS.reduce((sum, count) => sum + count)));
    let crashes = 0;
    for (const [times, isBusy] of [[1, false], [2, false], [1, true]] as const) {
      for (let turn = 0; turn < TURNS.length; turn++) {
        const stride = isLong || times === 1 ? 1 : 3;
        for (let at = 0; at < passed[turn]; at += stride) {
          const world = new World(options);
          for (let i = 0; i < TURNS.length; i++) {
            world.send(TURNS[i]);
            for (let n = 0; i === turn && n < times; n++) {
              // The first end is at the chosen point, a second one is a little further on, in what is left.
              crash.arm(n === 0 ? at : at % 7);
              if (!crash.ends(() => n === 0 ? world.serve() : (world.restart(), world.serve()))) {
                break;
              }
              crashes++;
              // The guest goes on meanwhile, and uses again what has been given back.
              if (isBusy) world.reap();
              while (isBusy && world.ring.driver.free >= 3) world.send(1);
            }
            if (i === turn) world.restart();
            world.serve();
            world.reap();
          }
          if (isBusy) assertEquals(world.answers, answersOf(world.sent), crash.where);
          else {
            assertEquals(world.answers, unbroken.answers, crash.where);
            assertEquals(world.bytes, unbroken.bytes, crash.where);
          }
        }
      }
    }
    assert(crashes > 300, `${crashes}`);
  });

  Deno.test(`${nameOf(options)}: without a record, chains have no position`, () => {
    const { driver, queue, memory, buffers } = ringIn(memoryOf(0x8000), options);
    driver.begin();
    driver.addWritable(buffers, 8);
    driver.commit();
    driver.kick();
    const chain = new Chain();
    assert(queue.next(chain) && memory.regions.length === 1);
    assertEquals(chain.position, 0);
  });
}

Deno.test("a process that ended between the two stores that follow a shown chain has shown it", () => {
  for (const packed of [false, true]) {
    const world = new World({ packed, size: 8 });
    world.send(3);
    const { queue } = world;
    const chain = new Chain();
    assert(queue.next(chain));
    queue.complete(chain, 8);
    queue.publish();
    // As the record is after the first of the two: the base is there, the position is not.
    world.words[1]--;
    world.restart();
    world.serve();
    world.reap();
    assertEquals(world.answers, answersOf(3));
  }
});

Deno.test("a used index that the driver wrote itself does not move the queue", () => {
  const world = new World({ packed: false, size: 8 });
  world.send(1);
  world.serve();
  world.reap();
  const { memory, setup } = world.ring;
  memory.resolve(setup.deviceArea + 2, 2, true);
  memory.data.setUint16(memory.offset, 777, true);
  world.restart();
  world.send(1);
  world.serve();
  world.reap();
  assertEquals(world.answers, answersOf(2));
});

Deno.test("a record of another ring, or of none, is refused", () => {
  for (const packed of [false, true]) {
    const options = { packed, size: 8 };
    const world = new World(options);
    const { memory, setup } = world.ring;
    const queue = packed ? new PackedQueue(memory) : new SplitQueue(memory);
    const refused = (words: Int32Array, size = 8) => {
      const record = new PositionRecord(words);
      assertEquals(queue.configure({ ...setup, size, record, goesOn: true }), RING_RECORD);
    };
    refused(new Int32Array(16));
    refused(world.words, 4);
    assertEquals(queue.configure({ ...setup, goesOn: true }), RING_RECORD);
    assert(queue.describeError().startsWith("Record of the position does not fit the ring"));
    const record = new PositionRecord(world.words);
    assertEquals(queue.configure({ ...setup, record, goesOn: true }), RING_OK);
  }
});

Deno.test("a ring is known to be unused until something in it was shown, over the end of the process", () => {
  for (const packed of [false, true]) {
    const world = new World({ packed, size: 8 });
    world.restart();
    assertEquals(world.queue.isUnused, true);
    world.send(1);
    world.serve();
    assertEquals(world.queue.isUnused, false);
    world.restart();
    assertEquals(world.queue.isUnused, false);
    assertEquals(world.queue.base, packed ? 0x8002_8002 : 1);
  }
});

Deno.test("a record counts how often a process ended while it executed one chain, and only then", () => {
  const words = new Int32Array(16);
  const start = () => {
    const record = new PositionRecord(words);
    record.goOn(false);
    return record;
  };
  new PositionRecord(words).begin(8, false, true, 0);
  assertEquals(start().attempt(5), 0);
  assertEquals(start().attempt(5), 1);
  // One that ends before it executes anything is no further try.
  start();
  const third = start();
  assertEquals(third.attempt(5), 2);
  third.attempted();
  assertEquals(third.attempt(6), 0);
  assertEquals(start().attempt(7), 0, "another chain");
  assertEquals(start().attempt(6), 0, "the tries of the one before do not count");
});

Deno.test("all that a device writes in a ring can be logged at once, for a process that ended before it did", () => {
  for (const packed of [false, true]) {
    const world = new World({ packed, size: 8 });
    const bits = new Uint8Array(64);
    const log = new DirtyLog(bits);
    const { setup } = world.ring;
    world.queue.logWrites(log, setup.deviceArea);
    world.queue.logAll();
    const page = (packed ? setup.descriptors : setup.deviceArea) >> 12;
    assertEquals(bits[page >> 3] & 1 << page % 8, 1 << page % 8);
  }
});
