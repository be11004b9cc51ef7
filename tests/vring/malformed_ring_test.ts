/** Split rings that a driver has filled against the rules. */
import { assert, assertEquals } from "@std/assert";
import { Chain, RING_OK } from "../../vring/mod.ts";
import {
  RING_AVAILABLE_INDEX,
  RING_CHAIN_BYTES,
  RING_CHAIN_LENGTH,
  RING_HEAD,
  RING_INDIRECT_LENGTH,
  RING_INDIRECT_MEMORY,
  RING_INDIRECT_NESTED,
  RING_INDIRECT_NEXT,
  RING_INDIRECT_OFF,
  RING_NEXT,
  RING_ORDER,
} from "../../vring/ring_error.ts";
import { INDIRECT, NEXT, offer, poke, WRITE } from "./hand_written.ts";
import { BASE, memoryOf, type Ring, ringIn } from "./ring_fixture.ts";

Deno.test("malformed rings stop the queue with the reason, and name the place", () => {
  const table = BASE + 0x3000;
  const far = 2 ** 40;
  const cases: readonly (readonly [string, number, (ring: Ring) => void])[] = [
    ["2.7.6: index 9 ahead of a ring of 8", RING_AVAILABLE_INDEX, (ring) => offer(ring, 9, 0)],
    ["index behind", RING_AVAILABLE_INDEX, (ring) => offer(ring, 0xffff, 0)],
    ["head outside the table", RING_HEAD, (ring) => offer(ring, 1, 8)],
    ["next outside the table", RING_NEXT, (ring) => {
      poke(ring, 0, BASE, 4, NEXT, 8);
      offer(ring, 1, 0);
    }],
    ["2.7.5: loop of one", RING_CHAIN_LENGTH, (ring) => {
      poke(ring, 0, BASE, 4, NEXT, 0);
      offer(ring, 1, 0);
    }],
    ["loop of writable descriptors", RING_CHAIN_LENGTH, (ring) => {
      poke(ring, 3, BASE, 4, NEXT | WRITE, 5);
      poke(ring, 5, BASE, 4, NEXT | WRITE, 3);
      offer(ring, 1, 3);
    }],
    ["2.7.4.2: writable before readable", RING_ORDER, (ring) => {
      poke(ring, 0, BASE, 4, NEXT | WRITE, 1);
      poke(ring, 1, BASE, 4, 0);
      offer(ring, 1, 0);
    }],
    ["2.7.5.2: more than 2^32 bytes", RING_CHAIN_BYTES, (ring) => {
      poke(ring, 0, BASE, 0xffff_ffff, NEXT, 1);
      poke(ring, 1, BASE, 2, WRITE);
      offer(ring, 1, 0);
    }],
    ["2.7.5.3.1: INDIRECT with NEXT", RING_INDIRECT_NEXT, (ring) => {
      poke(ring, 0, table, 16, INDIRECT | NEXT, 1);
      offer(ring, 1, 0);
    }],
    ["2.7.5.3.1: indirect in indirect", RING_INDIRECT_NESTED, (ring) => {
      poke(ring, 0, table, 16, INDIRECT, 0, table);
      poke(ring, 0, table, 16, INDIRECT);
      offer(ring, 1, 0);
    }],
    ["table of no length", RING_INDIRECT_LENGTH, (ring) => {
      poke(ring, 0, table, 0, INDIRECT);
      offer(ring, 1, 0);
    }],
    ["table of one and a half descriptors", RING_INDIRECT_LENGTH, (ring) => {
      poke(ring, 0, table, 24, INDIRECT);
      offer(ring, 1, 0);
    }],
    ["table outside memory", RING_INDIRECT_MEMORY, (ring) => {
      poke(ring, 0, far, 16, INDIRECT);
      offer(ring, 1, 0);
    }],
    ["table partly outside memory", RING_INDIRECT_MEMORY, (ring) => {
      poke(ring, 0, BASE + 0x8000 - 24, 32, INDIRECT);
      poke(ring, 0, BASE, 4, NEXT, 1, BASE + 0x8000 - 24);
      offer(ring, 1, 0);
    }],
    ["next outside an indirect table", RING_NEXT, (ring) => {
      poke(ring, 0, BASE, 4, NEXT, 2, table);
      poke(ring, 0, table, 32, INDIRECT);
      offer(ring, 1, 0);
    }],
    ["loop in an indirect table", RING_CHAIN_LENGTH, (ring) => {
      poke(ring, 0, BASE, 4, NEXT, 1, table);
      poke(ring, 1, BASE, 4, NEXT, 0, table);
      poke(ring, 0, table, 32, INDIRECT);
      offer(ring, 1, 0);
    }],
  ];
  for (const [name, error, spoil] of cases) {
    const ring = ringIn(memoryOf(0x8000), { size: 8, indirect: true });
    const { queue, setup } = ring;
    spoil(ring);
    assertEquals(queue.next(new Chain()), false, name);
    assertEquals(queue.error, error, `${name}: ${queue.describeError()}`);
    assert(/: value is 0x[0-9a-f]+, queue size is 8$/.test(queue.describeError()));
    assertEquals([queue.ready, queue.hasWork(), queue.next(new Chain())], [false, false, false]);
    assertEquals(queue.base, 0, "nothing was taken");
    assertEquals(queue.configure(setup), RING_OK, "a restart begins anew");
  }
});

Deno.test("a driver cannot have the device hold more chains than the ring has", () => {
  for (const complete of [false, true]) {
    const ring = ringIn(memoryOf(0x8000), { size: 8 });
    const { queue } = ring;
    for (let i = 0; i < 8; i++) poke(ring, i, BASE, 1, 0);
    offer(ring, 8, 0, 1, 2, 3, 4, 5, 6, 7);
    for (let i = 0; i < 8; i++) {
      const chain = new Chain();
      assert(queue.next(chain));
      if (complete) queue.complete(chain, 0);
    }
    // Nothing was given back, or nothing that the driver can know of.
    offer(ring, 9, 0);
    assertEquals(queue.next(new Chain()), false);
    assertEquals(queue.error, RING_AVAILABLE_INDEX);
  }
});

Deno.test("an indirect descriptor without the feature stops the queue", () => {
  const ring = ringIn(memoryOf(0x8000), { size: 8 });
  poke(ring, 0, BASE + 0x3000, 16, INDIRECT);
  offer(ring, 1, 0);
  assertEquals(ring.queue.next(new Chain()), false);
  assertEquals(ring.queue.error, RING_INDIRECT_OFF);
});

Deno.test("2.7.5.3.2: an indirect table may follow plain descriptors, its WRITE flag is ignored", () => {
  const ring = ringIn(memoryOf(0x8000), { size: 8, indirect: true });
  const table = BASE + 0x3000 + 8; // no alignment is asked of an indirect table
  poke(ring, 0, BASE, 1, 0, 0, table);
  poke(ring, 2, BASE, 2, WRITE, 0, table);
  poke(ring, 0, BASE, 1, NEXT, 2, table);
  poke(ring, 4, BASE, 4, NEXT, 6);
  poke(ring, 6, table, 48, INDIRECT | WRITE);
  offer(ring, 1, 4);
  const chain = new Chain();
  assert(ring.queue.next(chain), ring.queue.describeError());
  assertEquals([chain.head, chain.count, chain.readableCount], [4, 3, 2]);
  assertEquals([chain.readableLength, chain.writableLength], [5, 2]);
});
