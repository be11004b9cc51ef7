/** A chain's addresses are those that the driver wrote, all 64 bits of them (virtio 1.4, 2.7.5 and 2.8.6). */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  type AddressSpace,
  Chain,
  type GuestMemory,
  PackedQueue,
  type Queue,
  readMemory,
  SplitQueue,
  writeMemory,
} from "../../vring/mod.ts";
import { BASE, memoryOf, ringIn, runs } from "./ring_fixture.ts";

const INDIRECT = 4;

/** Any byte address, often one that a `number` does not hold. */
const addresses = fc.oneof(
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  fc.bigInt({ min: 2n ** 53n - 5000n, max: 2n ** 53n + 5000n }),
  fc.bigInt({ min: 2n ** 64n - 5000n, max: 2n ** 64n - 1n }),
);

/** Writes addresses over those of the descriptors from `table` on. */
function patch(memory: GuestMemory, table: number, addresses: readonly bigint[]): void {
  addresses.forEach((address, i) => {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, address, true);
    assert(writeMemory(memory, table + 16 * i, bytes, 0, 8));
  });
}

/** The table that the descriptors of the first chain are in. */
function tableOf(memory: GuestMemory, ring: number, packed: boolean): number {
  const bytes = new Uint8Array(16);
  assert(readMemory(memory, ring, bytes, 0, 16));
  const view = new DataView(bytes.buffer);
  const flags = view.getUint16(packed ? 14 : 12, true);
  return (flags & INDIRECT) === 0 ? ring : Number(view.getBigUint64(0, true));
}

function addressesOf(chain: Chain): readonly bigint[] {
  return Array.from(
    { length: chain.count },
    (_, i) => BigInt(chain.pages[i]) * 4096n + BigInt(chain.addresses[i]),
  );
}

/** A space without memory, which remembers the addresses that it was asked for. */
class Nowhere implements AddressSpace {
  generation = 1;
  bytes: Uint8Array = new Uint8Array(0);
  data: DataView = new DataView(this.bytes.buffer);
  offset = 0;
  readonly asked: bigint[] = [];

  resolve(address: number, _length: number, _write: boolean, page = 0): number {
    this.asked.push(BigInt(page) * 4096n + BigInt(address));
    return 0;
  }

  written(): void {}
}

for (const packed of [false, true]) {
  for (const indirect of [false, true]) {
    const name = `${packed ? "packed" : "split"}${indirect ? ", indirect" : ""}`;

    Deno.test(`${name}: every 64-bit address of a descriptor comes out of the ring exact`, () => {
      fc.assert(
        fc.property(
          fc.array(addresses, { minLength: 2, maxLength: 4 }),
          fc.boolean(),
          (addresses, crash) => {
            const options = { packed, size: 8, indirect, indirectLength: 4, inflight: true };
            const ring = ringIn(memoryOf(0x8000), options);
            const { driver, memory, setup } = ring;
            driver.begin();
            for (let i = 0; i < addresses.length; i++) driver.addWritable(BASE, 16);
            driver.commit();
            // A packed ring's first flags are written last.
            driver.kick();
            patch(memory, tableOf(memory, driver.descriptors, packed), addresses);
            const chain = new Chain();
            assert(ring.queue.next(chain));
            if (crash) {
              // The record of chains in flight has the address, too (vhost-user, "Inflight I/O tracking").
              const queue: Queue = packed ? new PackedQueue(memory) : new SplitQueue(memory);
              assertEquals(queue.configure(setup), 0);
              assert(queue.next(chain));
            }
            assertEquals(addressesOf(chain), addresses);
          },
        ),
        { numRuns: runs(100) },
      );
    });
  }
}

Deno.test("a chain asks its space for the exact address, to read and to write", () => {
  fc.assert(
    fc.property(addresses, (address) => {
      const space = new Nowhere();
      const chain = new Chain();
      const far = address >= 2n ** 53n;
      for (const writable of [false, true]) {
        chain.begin(space, 0, 2);
        if (far) chain.push(Number(address & 0xfffn), 8, writable, Number(address >> 12n));
        else chain.push(Number(address), 8, writable);
        if (writable) chain.scatter(0, new Uint8Array(8));
        else chain.gather(new Uint8Array(8));
      }
      assertEquals(space.asked, [address, address]);
    }),
  );
});
