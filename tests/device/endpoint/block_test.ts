/** virtio-blk, request by request (virtio 1.4, 5.2). */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { SECTOR } from "../../../device/endpoint/block/wire.ts";
import { BlockDevice, BlockDisk } from "../../../device/endpoint/mod.ts";
import { ImageFile } from "../../../device/host/mod.ts";
import { runs } from "../../vring/ring_fixture.ts";
import { BlockDriver, NO_STATUS } from "./block_driver.ts";

const IN = 0;
const OUT = 1;
const FLUSH = 4;
const GET_ID = 8;
const DISCARD = 11;
const WRITE_ZEROES = 13;
const OK = 0;
const IOERR = 1;
const UNSUPP = 2;

function pattern(length: number, seed: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, i) => (i * 31 + seed * 7 + (i >> 8)) & 0xff);
}

/** Ranges of a discard or write-zeroes request: sector, sectors, flags. */
function ranges(...list: readonly (readonly [number, number, number])[]): Uint8Array {
  const bytes = new Uint8Array(16 * list.length);
  const view = new DataView(bytes.buffer);
  list.forEach(([sector, sectors, flags], i) => {
    view.setBigUint64(16 * i, BigInt(sector), true);
    view.setUint32(16 * i + 8, sectors, true);
    view.setUint32(16 * i + 12, flags, true);
  });
  return bytes;
}

Deno.test("5.2.4: the config space tells capacity, block size, queues and what discard takes", () => {
  const path = Deno.makeTempFileSync();
  Deno.writeFileSync(path, new Uint8Array(1000 * SECTOR + 100));
  const device = new BlockDevice(new BlockDisk(ImageFile.open(path, true), false, ""), 3);
  const config = new Uint8Array(60);
  device.readConfig(config, 0);
  const view = new DataView(config.buffer);
  assertEquals(view.getBigUint64(0, true), 1000n);
  assertEquals([view.getUint32(12, true), view.getUint32(20, true)], [126, 512]);
  assertEquals([view.getUint16(34, true), view.getUint32(40, true), config[56]], [3, 16, 1]);
  assertEquals(device.featuresLow, 1 << 2 | 1 << 6 | 1 << 9 | 1 << 12 | 1 << 13 | 1 << 14);
  device.close();
  Deno.removeSync(path);
});

Deno.test("5.2.6: what is written is on the disk and can be read again", async () => {
  using driver = new BlockDriver({ size: 64 * SECTOR });
  const before = driver.image;
  const read = await driver.request(IN, 5, { data: 3 * SECTOR });
  assertEquals([read.status, read.used], [OK, 3 * SECTOR + 1]);
  assertEquals(read.data, before.slice(5 * SECTOR, 8 * SECTOR));
  const data = pattern(4 * SECTOR, 1);
  const written = await driver.request(OUT, 60, { data });
  assertEquals([written.status, written.used], [OK, 1]);
  assertEquals(driver.image.slice(60 * SECTOR), data);
  assertEquals(driver.image.slice(0, 60 * SECTOR), before.slice(0, 60 * SECTOR));
});

Deno.test("5.2.6: how data are cut into descriptors means nothing", async () => {
  using driver = new BlockDriver({ size: 64 * SECTOR });
  const data = pattern(8 * SECTOR, 2);
  const pieces = [1, 511, 3, 700, 1, 1, 4096 - 20];
  assertEquals((await driver.request(OUT, 1, { data, pieces })).status, OK);
  const read = await driver.request(IN, 1, { data: 8 * SECTOR, pieces: [7, 13, 2000] });
  assertEquals([read.status, read.data], [OK, data]);
});

Deno.test("a large request is served in pieces", async () => {
  using driver = new BlockDriver({ size: 4 << 20 });
  const data = pattern(2 << 20, 3);
  driver.send(OUT, 16, { data });
  assert(driver.serve() >= 32);
  assertEquals(driver.reap()?.status, OK);
  assertEquals(driver.image.slice(16 * SECTOR, 16 * SECTOR + data.length), data);
  assertEquals((await driver.request(IN, 16, { data: 2 << 20 })).data, data);
});

Deno.test("5.2.6: sectors beyond the disk and parts of sectors are IOERR, and nothing is written", async () => {
  using driver = new BlockDriver({ size: 16 * SECTOR });
  const before = driver.image;
  for (
    const [sector, length] of [
      [16, SECTOR],
      [15, 2 * SECTOR],
      [2n ** 64n - 1n, SECTOR],
      [2n ** 55n, SECTOR],
      [0, 100],
      [0, SECTOR + 1],
      [0, 17 * SECTOR],
    ] as const
  ) {
    const read = await driver.request(IN, sector, { data: length });
    assertEquals([read.status, read.used], [IOERR, 0], `read of ${length} at ${sector}`);
    const write = await driver.request(OUT, sector, { data: pattern(length, 4) });
    assertEquals([write.status, write.used], [IOERR, 1], `write of ${length} at ${sector}`);
  }
  assertEquals(driver.image, before);
  assertEquals((await driver.request(IN, 16, {})).status, OK, "nothing, right behind the end");
});

Deno.test("a request without a whole header, or without room for a status", async () => {
  using driver = new BlockDriver({ size: 16 * SECTOR });
  const short = await driver.request(IN, 0, { header: 15, data: SECTOR });
  assertEquals([short.status, short.used], [IOERR, 0]);
  const none = await driver.request(OUT, 0, { data: pattern(SECTOR, 5), status: false });
  assertEquals([none.status, none.used], [NO_STATUS, 0]);
  assertEquals((await driver.request(IN, 0, { data: SECTOR })).status, OK);
});

Deno.test("a buffer that cannot be reached: IOERR and nothing moves; the status itself: nothing at all", async () => {
  using driver = new BlockDriver({ size: 16 * SECTOR });
  const before = driver.image;
  const beyond = { address: (4 << 20) - SECTOR };
  const write = await driver.request(OUT, 0, { data: pattern(2 * SECTOR, 6), ...beyond });
  assertEquals([write.status, write.used], [IOERR, 1]);
  const read = await driver.request(IN, 0, { data: 2 * SECTOR, pieces: [SECTOR], ...beyond });
  assertEquals([read.status, read.used], [IOERR, 0]);
  const status = await driver.request(OUT, 0, {
    data: pattern(SECTOR, 7),
    statusAddress: 1 << 30,
  });
  assertEquals([status.status, status.used], [NO_STATUS, 0]);
  assertEquals(driver.image, before);
});

Deno.test("5.2.6.2: a read-only disk refuses every change with IOERR", async () => {
  using driver = new BlockDriver({ size: 16 * SECTOR, readOnly: true });
  const before = driver.image;
  assertEquals(driver.device.featuresLow & (1 << 5 | 1 << 13 | 1 << 14), 1 << 5);
  for (const [type, data] of [[OUT, pattern(SECTOR, 8)], [DISCARD, ranges([0, 1, 0])]] as const) {
    assertEquals((await driver.request(type, 0, { data })).status, IOERR);
  }
  assertEquals(
    (await driver.request(WRITE_ZEROES, 0, { data: ranges([0, 1, 0]) })).status,
    IOERR,
  );
  assertEquals((await driver.request(FLUSH, 0)).status, OK);
  assertEquals(driver.image, before);
});

Deno.test("5.2.6: the device tells its name in 20 bytes", async () => {
  for (const serial of ["", "disk", "exactly-twenty-bytes", "more than twenty bytes of name"]) {
    using driver = new BlockDriver({ size: SECTOR, serial });
    const answer = await driver.request(GET_ID, 0, { data: 20 });
    const name = new TextEncoder().encode(serial.slice(0, 20).padEnd(20, "\0"));
    assertEquals([answer.status, answer.used, answer.data], [OK, 21, name]);
  }
});

Deno.test("5.2.6: a flush is answered when the disk is stable, and later requests after it", async () => {
  using driver = new BlockDriver({ size: 16 * SECTOR });
  driver.send(FLUSH, 0);
  driver.serve();
  assertEquals(driver.reap(), undefined, "not before another thread has done it");
  assertEquals([driver.device.isBusy(0), driver.device.isReady(0)], [true, false]);
  await new Promise<void>((resolve) => driver.device.onProgress = resolve);
  assertEquals(driver.device.isReady(0), true);
  driver.serve();
  const answer = driver.reap();
  assertEquals([answer?.status, answer?.used], [OK, 1]);
});

Deno.test("a disk that drains answers what it has taken, and takes nothing more", async () => {
  using driver = new BlockDriver({ size: 16 * SECTOR });
  driver.send(FLUSH, 0);
  driver.serve();
  assertEquals(driver.device.drain(), "under way");
  driver.send(FLUSH, 0);
  await new Promise<void>((resolve) => driver.device.onProgress = resolve);
  driver.serve();
  assertEquals(driver.reap()?.status, OK);
  assertEquals([driver.device.drain(), driver.serve(), driver.reap()], [
    "drained",
    0,
    undefined,
  ]);
});

Deno.test("a queue that stops during a flush or a large request has its answer first", async () => {
  using driver = new BlockDriver({ size: 4 << 20 });
  driver.send(FLUSH, 0);
  driver.serve();
  driver.stop();
  assertEquals(driver.reap()?.status, OK);
  assertEquals(driver.device.isBusy(0), false);
  await driver.request(IN, 0, { data: SECTOR });
});

Deno.test("5.2.6: discarded and zeroed sectors, all ranges of a request or none", async () => {
  using driver = new BlockDriver({ size: 1 << 20 });
  const expected = driver.image;
  const zeroed = await driver.request(WRITE_ZEROES, 0, {
    data: ranges([1, 3, 0], [100, 700, 1], [2000, 48, 0]),
  });
  assertEquals([zeroed.status, zeroed.used], [OK, 1]);
  expected.fill(0, 1 * SECTOR, 4 * SECTOR);
  expected.fill(0, 100 * SECTOR, 800 * SECTOR);
  expected.fill(0, 2000 * SECTOR);
  assertEquals(driver.image, expected);
  assertEquals((await driver.request(DISCARD, 0, { data: ranges([16, 16, 0]) })).status, OK);
  const after = driver.image;
  assertEquals(after.length, 1 << 20, "the image keeps its size");
  assertEquals(after.slice(0, 16 * SECTOR), expected.slice(0, 16 * SECTOR));
  assertEquals(after.slice(32 * SECTOR), expected.slice(32 * SECTOR));
});

Deno.test("5.2.6.2: ranges with unknown flags are UNSUPP, ranges that cannot be are IOERR; nothing changes", async () => {
  using driver = new BlockDriver({ size: 64 * SECTOR });
  const before = driver.image;
  async function status(type: number, data: Uint8Array): Promise<number> {
    return (await driver.request(type, 0, { data })).status;
  }
  assertEquals(await status(DISCARD, ranges([0, 1, 1])), UNSUPP);
  assertEquals(await status(DISCARD, ranges([0, 1, 2])), UNSUPP);
  assertEquals(await status(WRITE_ZEROES, ranges([0, 1, 0], [0, 1, 2])), UNSUPP);
  assertEquals(await status(WRITE_ZEROES, ranges([0, 1, 0], [63, 2, 0])), IOERR);
  assertEquals(await status(WRITE_ZEROES, ranges([0, 2 ** 21 + 1, 0])), IOERR);
  assertEquals(await status(DISCARD, new Uint8Array(0)), IOERR);
  assertEquals(await status(DISCARD, ranges([0, 1, 0]).slice(0, 15)), IOERR);
  assertEquals(await status(DISCARD, ranges(...Array(17).fill([0, 1, 0]))), IOERR);
  assertEquals(driver.image, before);
  assertEquals(await status(WRITE_ZEROES, ranges([0, 0, 0])), OK, "a range of nothing");
});

Deno.test("5.2.6: a request of unknown type is UNSUPP", async () => {
  using driver = new BlockDriver({ size: SECTOR });
  for (const type of [2, 3, 10, 14, 0xffffffff]) {
    const answer = await driver.request(type, 0, { data: 64 });
    assertEquals([answer.status, answer.used], [UNSUPP, 0]);
    const bare = await driver.request(type, 0);
    assertEquals([bare.status, bare.used], [UNSUPP, 1]);
  }
});

// Virtio 1.4, 2.7.8.2: the device writes at least the used length, from the first writable byte on.
Deno.test("2.7.8.2: the used length ends where the first byte that was not written is", async () => {
  using driver = new BlockDriver({ size: 64 * SECTOR });
  await Deno.truncate(driver.path, 32 * SECTOR);
  const cases = [
    [IN, 0, 2 * SECTOR, OK, 2 * SECTOR + 1],
    [IN, 64, SECTOR, IOERR, 0],
    [IN, 30, 4 * SECTOR, IOERR, 2 * SECTOR], // the image ends in the middle
    [GET_ID, 0, 20, OK, 21],
    [GET_ID, 0, 7, OK, 8],
    [GET_ID, 0, 64, OK, 20],
    [FLUSH, 0, 64, OK, 0],
    [FLUSH, 0, 0, OK, 1],
    [99, 0, 64, UNSUPP, 0],
    [DISCARD, 0, 64, IOERR, 0],
  ] as const;
  for (const [type, sector, data, status, used] of cases) {
    const answer = await driver.request(type, sector, { data });
    assertEquals([answer.status, answer.used], [status, used], `type ${type}, ${data} bytes`);
  }
});

Deno.test("2.7.8.2: whatever is asked, the bytes that the used length counts were written", async () => {
  const request = fc.record({
    type: fc.constantFrom(IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES, 2, 99),
    sector: fc.constantFrom(0, 1, 30, 31, 32, 62, 63, 64, 2 ** 40),
    data: fc.oneof(fc.nat(70), fc.nat(6).map((sectors) => sectors * SECTOR)),
    pieces: fc.array(fc.integer({ min: 1, max: 700 }), { maxLength: 4 }),
    header: fc.constantFrom(16, 16, 16, 15, 1),
    status: fc.boolean(),
  });
  using driver = new BlockDriver({ size: 64 * SECTOR });
  await Deno.truncate(driver.path, 32 * SECTOR);
  await fc.assert(
    fc.asyncProperty(request, async ({ type, sector, ...layout }) => {
      const { data, status } = layout;
      // The same request twice, over two patterns: a byte that differs afterwards was not written.
      const one = await driver.request(type, sector, { ...layout, poison: 0x5a });
      const other = await driver.request(type, sector, { ...layout, poison: 0xa5 });
      assertEquals([one.status, one.used], [other.status, other.used]);
      const isStatusCounted = one.used === data + 1;
      assert(one.used <= data || (isStatusCounted && status), `${one.used} of ${data} bytes`);
      assertEquals(one.status === NO_STATUS, !status);
      const counted = isStatusCounted ? data : one.used;
      assertEquals(one.data.subarray(0, counted), other.data.subarray(0, counted));
      if (counted < data) assert(one.data[counted] !== other.data[counted], "more was written");
    }),
    { numRuns: runs(150) },
  );
});

Deno.test("an image that has become shorter answers IOERR", async () => {
  using driver = new BlockDriver({ size: 64 * SECTOR });
  await Deno.truncate(driver.path, 32 * SECTOR);
  assertEquals((await driver.request(IN, 40, { data: SECTOR })).status, IOERR);
  assertEquals((await driver.request(IN, 30, { data: 4 * SECTOR })).status, IOERR);
  assertEquals((await driver.request(IN, 30, { data: 2 * SECTOR })).status, OK);
});

Deno.test("whatever is written, zeroed and read: the disk is what a plain array would be", async () => {
  const step = fc.record({
    type: fc.constantFrom(IN, OUT, WRITE_ZEROES, FLUSH),
    sector: fc.nat(300),
    count: fc.nat(150),
    seed: fc.nat(255),
    pieces: fc.array(fc.integer({ min: 1, max: 9000 }), { maxLength: 8 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      using driver = new BlockDriver({ size: 320 * SECTOR });
      const model = driver.image;
      for (const { type, sector, count, seed, pieces } of steps) {
        const isThere = sector + count <= 320;
        const [from, to] = [sector * SECTOR, (sector + count) * SECTOR];
        if (type === IN) {
          const answer = await driver.request(IN, sector, { data: count * SECTOR, pieces });
          assertEquals(answer.status, isThere ? OK : IOERR);
          if (isThere) assertEquals(answer.data, model.slice(from, to));
        } else if (type === OUT) {
          const data = pattern(count * SECTOR, seed);
          const answer = await driver.request(OUT, sector, { data, pieces });
          assertEquals(answer.status, isThere ? OK : IOERR);
          if (isThere) model.set(data, from);
        } else if (type === WRITE_ZEROES) {
          const data = ranges([sector, count, seed & 1]);
          const answer = await driver.request(WRITE_ZEROES, 0, { data });
          assertEquals(answer.status, isThere ? OK : IOERR);
          if (isThere) model.fill(0, from, to);
        } else {
          assertEquals((await driver.request(FLUSH, 0)).status, OK);
        }
      }
      assertEquals(driver.image, model);
    }),
    { numRuns: 40 },
  );
});
