import { assert, assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import { ProtocolFeature, Request } from "../../../device/vhost_user/mod.ts";
import { MemoryTable } from "../../../device/vhost_user/memory_table.ts";
import { Descriptor } from "../../../device/host/mod.ts";
import { cString, libc } from "../../../device/host/libc.ts";
import { GuestMemory } from "../../../vring/mod.ts";
import { joined, longs, words } from "../../bytes.ts";
import { mappingsOf, openDescriptors } from "../host/host_state.ts";
import { RawPeer, withDescriptors } from "./raw_peer.ts";
import { connect, disconnect, RecordingDevice } from "./serving.ts";

const MIB = 1 << 20;

for (const slots of [true, false]) {
  const way = slots ? "as slots" : "as a table";
  const options = slots ? {} : { acceptProtocol: ~ProtocolFeature.CONFIGURE_MEM_SLOTS };

  Deno.test(`memory comes and goes while a queue runs, handed over ${way}`, async () => {
    const mapped = mappingsOf("guest-memory");
    const before = openDescriptors();
    await using session = connect(options);
    const { frontEnd, device } = session;
    await frontEnd.negotiate();
    await frontEnd.addMemory(0, MIB);
    const queue = await frontEnd.startQueue(0, { size: 8, address: 0 });
    device.takeEvents();
    for (let round = 0; round < 3; round++) {
      const more = await frontEnd.addMemory(4 * MIB, MIB);
      new Uint8Array(more.mapping.buffer).set([5, 6, 7, 8]);
      queue.driver.begin();
      queue.driver.addReadable(4 * MIB, 4);
      queue.driver.addWritable(4 * MIB + 64, 4);
      queue.driver.commit();
      queue.kick();
      assertEquals(await queue.reap(), true);
      assertEquals([...new Uint8Array(more.mapping.buffer, 64, 4)], [8, 7, 6, 5]);
      await frontEnd.removeMemory(more);
      assertEquals(device.takeEvents(), ["memory+ 400000 100000", "memory- 400000 100000"]);
      assertEquals(mappingsOf("guest-memory").length, mapped.length + 2);
    }
    await disconnect(session);
    assertEquals(openDescriptors(), before);
    assertEquals(mappingsOf("guest-memory"), mapped);
  });
}

Deno.test("removed memory leaves views of it empty", async () => {
  await using session = connect();
  const { frontEnd, device } = session;
  await frontEnd.negotiate();
  const made = await frontEnd.addMemory(0, MIB);
  const view = new Uint8Array(device.regions[0].buffer);
  view[0] = 1;
  await frontEnd.removeMemory(made);
  assertEquals(view.length, 0);
  assertEquals(device.regions, []);
});

Deno.test("memory that would overlap is refused and changes nothing", async () => {
  const mapped = mappingsOf("guest-memory");
  await using session = connect();
  const { frontEnd, device } = session;
  await frontEnd.negotiate();
  const made = await frontEnd.addMemory(0, MIB);
  device.takeEvents();
  const payload = longs(0, MIB - 4096, MIB, 0, 0);
  await assertRejects(
    () => frontEnd.tell(Request.ADD_MEM_REG, payload, [made.file]),
    Error,
    "Cannot ADD_MEM_REG: the back end refused",
  );
  assertEquals(device.takeEvents(), []);
  assertEquals(mappingsOf("guest-memory").length, mapped.length + 2);
});

Deno.test("a table that is refused leaves the old one and no mapping of its own", () => {
  const mapped = mappingsOf("raw-peer");
  withDescriptors(({ memory, event }) => {
    using peer = new RawPeer();
    peer.agree();
    const one = longs(0, 4096, 0, 0);
    const two = longs(8192, 4096, 8192, 8192);
    assertEquals(peer.acknowledged(Request.SET_MEM_TABLE, joined(longs(1), one), [memory]), 0);
    peer.device.takeEvents();
    const table = joined(longs(2), two, one);
    assertEquals(peer.acknowledged(Request.SET_MEM_TABLE, table, [memory, event]), 1);
    assertEquals(peer.device.takeEvents(), []);
    assertEquals(mappingsOf("raw-peer").length, mapped.length + 1);
    assertEquals(peer.acknowledged(Request.SET_MEM_TABLE, table, [memory, memory]), 0);
    assertEquals(peer.device.takeEvents(), ["memory+ 2000 1000"]);
    assertEquals(mappingsOf("raw-peer").length, mapped.length + 2);
  });
  assertEquals(mappingsOf("raw-peer"), mapped);
});

Deno.test("the same memory at another offset or address is other memory", () => {
  withDescriptors(({ memory }) => {
    using peer = new RawPeer();
    peer.agree();
    const tables = [[0, 4096, 0, 0], [0, 4096, 0, 4096], [4096, 4096, 0, 4096], [
      4096,
      4096,
      8,
      4096,
    ]];
    const events: string[] = [];
    for (const region of tables) {
      peer.device.takeEvents();
      const table = joined(longs(1), longs(...region));
      assertEquals(peer.acknowledged(Request.SET_MEM_TABLE, table, [memory]), 0);
      events.push(peer.device.takeEvents().join());
    }
    assertEquals(events, [
      "memory+ 0 1000",
      "memory- 0 1000,memory+ 0 1000",
      "memory- 0 1000,memory+ 1000 1000",
      "memory- 1000 1000,memory+ 1000 1000",
    ]);
  });
});

Deno.test("512 memory slots are served, and not one more", () => {
  const mapped = mappingsOf("raw-peer");
  withDescriptors(({ memory }) => {
    using peer = new RawPeer();
    peer.agree();
    const add = (i: number) =>
      peer.acknowledged(Request.ADD_MEM_REG, longs(0, i * 8192, 4096, i * 8192, 0), [memory]);
    for (let i = 0; i < 512; i++) assertEquals(add(i), 0);
    assertEquals(add(512), 1);
    assertEquals(peer.warnings, ["ADD_MEM_REG refused: there are 512 regions already"]);
    peer.send(Request.REM_MEM_REG, longs(0, 8192, 4096, 8192, 0), [memory]);
    assertEquals(add(512), 0);
  });
  assertEquals(mappingsOf("raw-peer"), mapped);
});

Deno.test("REM_MEM_REG may bring a descriptor, which is closed", () => {
  withDescriptors(({ memory }) => {
    using peer = new RawPeer();
    peer.agree();
    const before = openDescriptors();
    for (const files of [[], [memory]]) {
      assertEquals(peer.acknowledged(Request.ADD_MEM_REG, longs(0, 0, 4096, 0, 0), [memory]), 0);
      assertEquals(peer.acknowledged(Request.REM_MEM_REG, longs(0, 0, 4096, 0, 9), files), 0);
    }
    peer.send(Request.SET_STATUS, words(0, 0));
    assertEquals(openDescriptors(), before);
  });
});

/** vhost-user.rst, "Memory region description": "user address: a 64-bit user address". */
Deno.test("user addresses of all 64 bits find their rings", async () => {
  for (
    const userOffset of [
      0,
      2 ** 47,
      2 ** 52,
      2n ** 53n - 8n,
      2n ** 60n + 1n,
      2n ** 64n - BigInt(MIB),
    ]
  ) {
    await using session = connect({ userOffset });
    await session.frontEnd.negotiate();
    await session.frontEnd.addMemory(0, MIB);
    await session.frontEnd.startQueue(0, { size: 8, address: 0 });
    assertEquals(session.device.takeEvents().at(-1), "start 0");
  }
});

/** rust-vmm's front ends send up to 32 regions, cloud-hypervisor 10 and more. */
Deno.test("a table may have up to 32 regions; one more is refused, and the old table stays", () => {
  const mapped = mappingsOf("raw-peer");
  withDescriptors(({ memory }) => {
    using peer = new RawPeer();
    peer.agree();
    const table = (count: number) =>
      joined(
        longs(count),
        ...Array.from({ length: count }, (_, i) =>
          longs(i * 8192, 4096, 2n ** 63n + BigInt(i) * 8192n, 0)),
      );
    for (const count of [1, 8, 9, 31, 32]) {
      const files = new Array(count).fill(memory);
      assertEquals(peer.acknowledged(Request.SET_MEM_TABLE, table(count), files), 0, `${count}`);
      assertEquals(peer.device.regions.length, count);
    }
    peer.device.takeEvents();
    assertEquals(
      peer.acknowledged(Request.SET_MEM_TABLE, table(33), new Array(33).fill(memory)),
      1,
    );
    assertEquals([peer.device.takeEvents(), peer.device.regions.length], [[], 32]);
    assertEquals(peer.warnings, ["SET_MEM_TABLE refused: it has 33 regions, not 1 to 32"]);
  });
  assertEquals(mappingsOf("raw-peer"), mapped);
});

Deno.test("a user address is looked up without losing a bit", () => {
  withDescriptors(({ memory }) => {
    const table = new MemoryTable(new RecordingDevice());
    fc.assert(
      fc.property(
        fc.bigInt(0n, 2n ** 64n - 0x3000n),
        fc.integer({ min: -4, max: 0x3003 }),
        (user, into) => {
          const at = (value: bigint) => ({
            page: Number(value >> 12n),
            offset: Number(value & 0xfffn),
          });
          const region = {
            guestAddress: 0x8000,
            size: 0x3000,
            userAddress: at(user),
            fileOffset: 0,
          };
          assertEquals(table.replace([region], [memory]), undefined);
          const asked = user + BigInt(into);
          if (asked < 0n || asked >= 2n ** 64n) return;
          const isInside = into >= 0 && into < 0x3000;
          assertEquals(table.guestAddressOf(at(asked)), isInside ? 0x8000 + into : -1);
          assertEquals(table.guestAddressOf(at(asked ^ (1n << 63n))), -1);
          // The same but for the lowest bit is another region.
          const other = { ...region, userAddress: at(user ^ 1n) };
          assert(
            table.remove(other)?.startsWith(
              "no region of 12288 bytes is at 0x8000, user address 0x",
            ),
          );
          assertEquals(table.remove(region), undefined);
        },
      ),
      { numRuns: 200, seed: 13 },
    );
    table.clear();
  });
});

Deno.test("a device that has guest memory finds the table's regions in it whenever it is told of a change", () => {
  withDescriptors(({ memory }) => {
    const guest = new GuestMemory();
    const device = Object.assign(new RecordingDevice(), { memory: guest });
    const found: number[] = [];
    device.memoryAdded = device.memoryRemoved = () => {
      found.push(guest.regions.length);
    };
    const table = new MemoryTable(device);
    assertEquals(table.memory, guest);
    const region = (page: number) => ({
      guestAddress: page * 4096,
      size: 4096,
      userAddress: { page, offset: 0 },
      fileOffset: 0,
    });
    assertEquals(table.add(region(1), memory), undefined);
    assertEquals(table.replace([region(2), region(3)], [memory, memory]), undefined);
    assertEquals(table.remove(region(2)), undefined);
    table.clear();
    // One added; one removed and two added by a whole table; one removed; one removed by the end.
    assertEquals(found, [1, 2, 2, 2, 1, 0]);
  });
});

Deno.test({
  name: "a front end that truncates its memory gets zeros, a line, and no crash",
  ignore: Deno.build.arch !== "x86_64",
  async fn() {
    await using session = connect();
    const { frontEnd, service } = session;
    await frontEnd.negotiate();
    await frontEnd.addMemory(0, MIB);
    const queue = await frontEnd.startQueue(0, { size: 8, address: 0 });
    const MFD_CLOEXEC = 1;
    using file = new Descriptor(libc().memfdCreate(cString("guest-memory"), MFD_CLOEXEC));
    libc().ftruncate(file.number, BigInt(MIB));
    await frontEnd.tell(Request.ADD_MEM_REG, longs(0, 4 * MIB, MIB, 2 ** 50, 0), [file]);
    libc().ftruncate(file.number, 0n);
    queue.driver.begin();
    queue.driver.addReadable(4 * MIB, 4);
    queue.driver.addWritable(0x8000, 4);
    queue.driver.commit();
    queue.kick();
    assertEquals(await queue.reap(), true);
    assertEquals(queue.driver.usedLength, 4);
    await frontEnd.readConfig(0, 1);
    assertEquals(service.warnings, ["A front end has truncated memory that it had handed over"]);
  },
});
