/**
 * A chain costs a device behind the IOMMU what it uses of it, a bounded piece at a time, however long its buffers are.
 *
 * What is counted is translations: each page of a buffer that is looked at is one.
 */
import { assert, assertEquals } from "@std/assert";
import { BlockRequest } from "../../../device/endpoint/block/request.ts";
import { DmaCounters } from "../../../device/endpoint/endpoint_device.ts";
import { BlockDisk, EntropyDevice } from "../../../device/endpoint/mod.ts";
import { SeededRandom } from "../../../device/endpoint/random_source.ts";
import { ImageFile } from "../../../device/host/mod.ts";
import { GuestMemory } from "../../../vring/mod.ts";
import { plainMemory, plainRing } from "../plain_ring.ts";

const PAGE = 4096;
/** Bytes of a guest's longest buffer here: 4096 pages. */
const LARGE = 2 ** 24;
const BUFFER = 2 ** 20;
const HEADER = 0x8000;
const STATUS = 0x9000;
/** Translations in a piece: 256 KiB to check, with the first 64 KiB to move behind the last of it, and a few besides. */
const PIECE = 84;
const [IN, OUT, FLUSH, GET_ID] = [0, 1, 4, 8];
const [OK, IOERR] = [0, 1];

/** Guest memory in which no two pages are found together, and looks are counted. */
class CountedMemory extends GuestMemory {
  looks = 0;
  /** First byte that cannot be accessed. */
  end = Infinity;

  override resolve(address: number, length: number, write: boolean, page = 0): number {
    this.looks++;
    if (address >= this.end) return 0;
    return Math.min(super.resolve(address, length, write, page), PAGE - address % PAGE);
  }
}

function memoryOf(size: number): CountedMemory {
  const memory = new CountedMemory();
  plainMemory(size, memory);
  return memory;
}

Deno.test("a buffer of megabytes costs an entropy device no more than the bytes it gives", () => {
  const memory = memoryOf(BUFFER + LARGE);
  const { driver, queue } = plainRing(memory, 0, 16);
  const device = new EntropyDevice(new SeededRandom(1));
  for (let i = 0; i < 3; i++) {
    driver.begin();
    driver.addWritable(BUFFER, LARGE);
    driver.commit();
  }
  driver.kick();
  for (let i = 0; i < 3; i++) {
    memory.looks = 0;
    assert(device.serve(0, queue));
    assert(memory.looks <= PIECE, `${memory.looks} translations`);
    assert(driver.reap());
    assertEquals(driver.usedLength, 65536);
  }
});

/** Serves a request to a disk step by step. Its status, used length, steps, and most translations in one. */
function serveRequest(type: number, readable: number, writable: number, end = Infinity) {
  const path = Deno.makeTempFileSync();
  try {
    Deno.truncateSync(path, LARGE);
    const image = ImageFile.open(path, true);
    const memory = memoryOf(BUFFER + LARGE);
    memory.resolve(HEADER, 16, true);
    memory.data.setUint32(memory.offset, type, true);
    memory.end = end;
    const request = new BlockRequest(
      new BlockDisk(image, false, "disk"),
      new DmaCounters(),
      () => {},
    );
    const { chain } = request;
    chain.begin(memory, 0, 8);
    chain.push(HEADER, 16, false);
    if (readable > 0) chain.push(BUFFER, readable, false);
    if (writable > 0) chain.push(BUFFER, writable, true);
    chain.push(STATUS, 1, true);
    memory.looks = 0;
    request.begin();
    let most = memory.looks;
    if (request.waits) request.finish();
    let steps = 0;
    for (memory.looks = 0; request.isUnderWay; memory.looks = 0) {
      request.step();
      steps++;
      most = Math.max(most, memory.looks);
    }
    memory.end = Infinity;
    memory.resolve(STATUS, 1, false);
    const status = memory.bytes[memory.offset];
    image.close();
    return { status, used: request.usedLength, most, steps };
  } finally {
    Deno.removeSync(path);
  }
}

Deno.test("a block request looks only at the part of its chain that it uses, a piece at a time", () => {
  const read = serveRequest(IN, 0, LARGE);
  assertEquals([read.status, read.used], [OK, LARGE + 1]);
  assert(read.most <= PIECE && read.steps >= 256, `${read.most} in one of ${read.steps} steps`);
  const written = serveRequest(OUT, LARGE, 0);
  assertEquals([written.status, written.used], [OK, 1]);
  assert(written.most <= PIECE, `${written.most}`);
  const id = serveRequest(GET_ID, 0, LARGE);
  assertEquals(id.status, OK);
  assert(id.most <= 8, `GET_ID: ${id.most}`);
  const flush = serveRequest(FLUSH, LARGE, LARGE);
  assertEquals(flush.status, OK);
  assert(flush.most <= 8, `FLUSH: ${flush.most}`);
});

Deno.test("a buffer that ends behind its last reachable page moves nothing, however many pieces it has", () => {
  const { status, used, most } = serveRequest(IN, 0, LARGE, BUFFER + LARGE - PAGE);
  assertEquals([status, used], [IOERR, 0]);
  assert(most <= PIECE);
});
