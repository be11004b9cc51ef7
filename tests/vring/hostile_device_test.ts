/** What a device can do wrong in its used ring: a value for the driver, and nothing else. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { PackedDriverQueue, SplitDriverQueue } from "../../vring/mod.ts";
import { USED_ID, USED_INDEX, USED_OK } from "../../vring/driver_queue_base.ts";
import { BASE, memoryOf } from "./ring_fixture.ts";

const SIZE = 8;

/** A driver with a few chains in flight, and the used ring as the device sees it. */
function driverWith(chains: number) {
  const memory = memoryOf(0x4000);
  const driver = new SplitDriverQueue({ space: memory, address: BASE, size: SIZE });
  const tokens: number[] = [];
  for (let i = 0; i < chains; i++) {
    driver.begin();
    driver.addWritable(BASE + 0x3000, 64);
    tokens.push(driver.commit());
  }
  driver.kick();
  memory.resolve(driver.deviceArea, 6 + 8 * SIZE, true);
  const used = new DataView(
    memory.bytes.buffer,
    memory.bytes.byteOffset + memory.offset,
    6 + 8 * SIZE,
  );
  let index = 0;
  function use(id: number, length: number): void {
    used.setUint32(4 + 8 * (index % SIZE), id, true);
    used.setUint32(8 + 8 * (index % SIZE), length, true);
    used.setUint16(2, ++index, true);
  }
  return { driver, tokens, used, use };
}

Deno.test("an id that is not in flight, or twice, is a value (2.7.8)", () => {
  for (const id of [3, 7, 8, 65_536, 2 ** 32 - 1]) {
    const { driver, use } = driverWith(3);
    use(id, 0);
    assertEquals(driver.tryReap(), false);
    assertEquals(driver.usedFault, USED_ID);
    assert(driver.describeUsedFault().endsWith(` ${id}`));
    assertThrows(() => driver.reap(), Error, "not in flight");
  }
  const { driver, tokens, use } = driverWith(3);
  use(tokens[1], 5);
  use(tokens[1], 5);
  assertEquals([driver.tryReap(), driver.token, driver.usedLength], [true, tokens[1], 5]);
  assertEquals([driver.tryReap(), driver.usedFault], [false, USED_ID]);
});

Deno.test("packed: an id that is not in flight, or twice, is a value (2.8.7)", () => {
  for (const id of [1, 7, 8, 0xffff]) {
    const memory = memoryOf(0x4000);
    const driver = new PackedDriverQueue({ space: memory, address: BASE, size: SIZE });
    for (let i = 0; i < 3; i++) {
      driver.begin();
      driver.addWritable(BASE + 0x3000, 64);
      driver.commit();
    }
    driver.kick();
    memory.resolve(driver.descriptors, 16 * SIZE, true);
    const { data, offset } = memory;
    const use = (slot: number, id: number) => {
      data.setUint16(offset + 16 * slot + 12, id, true);
      data.setUint16(offset + 16 * slot + 14, 0x8080, true);
    };
    use(0, 1);
    assertEquals([driver.tryReap(), driver.token], [true, 1]);
    use(1, id);
    assertEquals([driver.tryReap(), driver.usedFault, driver.inFlight], [false, USED_ID, 2]);
    assert(driver.describeUsedFault().endsWith(` ${id}`));
    assertThrows(() => driver.reap(), Error, "not in flight");
  }
});

Deno.test("a used index that is ahead of what is in flight is a value (2.7.8)", () => {
  for (const index of [4, 100, 65_535]) {
    const { driver, used } = driverWith(3);
    used.setUint16(2, index, true);
    assertEquals([driver.tryReap(), driver.usedFault], [false, USED_INDEX]);
  }
});

Deno.test("whatever the device writes into the used ring, each chain comes back once at most", () => {
  const write = fc.record({
    at: fc.nat(5 + 8 * SIZE),
    value: fc.oneof(fc.nat(255), fc.nat(SIZE)),
  });
  fc.assert(
    fc.property(fc.nat(SIZE), fc.array(write, { maxLength: 60 }), (chains, writes) => {
      const { driver, tokens, used } = driverWith(chains);
      const left = new Set(tokens);
      for (const { at, value } of writes) {
        used.setUint8(at, value);
        while (driver.tryReap()) assert(left.delete(driver.token), "it was in flight");
        assertEquals(driver.inFlight, left.size);
        if (driver.usedFault !== USED_OK) return;
      }
    }),
    { numRuns: 2000 },
  );
});
