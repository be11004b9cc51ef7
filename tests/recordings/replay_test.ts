/**
 * Recordings of real guests are replayed in every format: each answer is the recorded one, and the tables are bit for bit
 * those of a device that was sent the same requests over a ring.
 */
import { assert, assertEquals } from "@std/assert";
import { formatNames } from "../../pagetable/mod.ts";
import { IommuDevice } from "../../device/iommu/iommu_device.ts";
import { readConfiguration } from "../../device/recording/configuration.ts";
import { RecordedRegions } from "../../device/recording/recorded_regions.ts";
import { readerOf } from "../../device/recording/recording_reader.ts";
import { measureReplay } from "../../device/recording/replay_bench.ts";
import { RequestDecoder } from "../../device/recording/request_decoder.ts";
import {
  MEMORY_ADDED,
  MEMORY_REMOVED,
  PIECES,
  QUEUE_BEGINS,
  REQUEST,
  RESET,
  RESET_KINDS,
  START_SIGNS,
} from "../../device/recording/wire.ts";
import { assertSameTables, replayOf } from "../device/recording/recorded_guest.ts";
import { plainMemory, plainRing } from "../device/plain_ring.ts";

const MOST_TABLES = 2 ** 30;
const FOLDER = new URL("./", import.meta.url);
const NAMES = [...Deno.readDirSync(FOLDER)].map(({ name }) => name)
  .filter((name) => name.endsWith(".rec"));

/** Sends the requests of a recording to a device over a ring, up to a number. */
function sentOverRing(bytes: Uint8Array, format: string, count: number): IommuDevice {
  const reader = readerOf(bytes);
  assert(reader.next());
  const text = new TextDecoder().decode(reader.bytesFrom(3).subarray(0, reader.word(2)));
  const configuration = readConfiguration(text);
  assert(typeof configuration === "object");
  const { endpoints, ...rest } = configuration.device;
  const device = new IommuDevice({
    ...rest,
    endpoints: endpoints.map((range) => ({ ...range, format })),
  });
  const { memory, bytes: ram } = plainMemory(0x10000);
  const { driver, queue } = plainRing(memory, 0, 8);
  device.featuresAgreed(~0, 0);
  const request = new RequestDecoder();
  const regions = new RecordedRegions();
  for (let sent = 0; sent < count && reader.next();) {
    switch (reader.kind) {
      case PIECES:
        for (let i = reader.word(2); i > 0; i--) device.iommu.endPiece();
        continue;
      case MEMORY_ADDED:
        assert(regions.add(device, reader.number(2), reader.number(4)));
        continue;
      case MEMORY_REMOVED:
        assert(regions.remove(device, reader.number(2), reader.number(4)));
        continue;
      case RESET:
        device.reset(RESET_KINDS[reader.word(2)]);
        continue;
      case QUEUE_BEGINS:
        device.queueBegins(reader.word(2), START_SIGNS[reader.word(3)]);
        continue;
      case REQUEST:
        break;
      default:
        continue;
    }
    assert(request.decode(reader));
    ram.set(request.bytes.subarray(0, request.length), 0x4000);
    driver.begin();
    driver.addReadable(0x4000, request.length);
    driver.addWritable(0x5000, request.room);
    driver.commit();
    driver.kick();
    device.service(0, queue, 1);
    assert(driver.reap());
    assertEquals(ram[0x5000 + driver.usedLength - 4], request.status);
    sent++;
  }
  return device;
}

for (const name of NAMES) {
  const bytes = Deno.readFileSync(new URL(name, FOLDER));
  for (const format of formatNames()) {
    Deno.test(`${name} replays in ${format}, to the tables that its requests make over a ring`, () => {
      const replay = replayOf(bytes, format, MOST_TABLES);
      // Where most is mapped: at the end nothing is.
      let most = 0;
      let place = 0;
      while (replay.step()) {
        const { mappingCount } = replay.device.iommu;
        if (mappingCount <= most) continue;
        most = mappingCount;
        place = replay.requests.served;
      }
      assertEquals([replay.problem, replay.requests.difference], [undefined, undefined]);
      assertEquals([replay.end, replay.isCut], ["serve ended", false]);
      assert(most > 10, `${most} mappings`);
      replay.close();
      const again = replayOf(bytes, format, MOST_TABLES);
      while (again.requests.served < place && again.step());
      const other = sentOverRing(bytes, format, place);
      assertSameTables(again.device, other);
      again.close();
      other.close();
    });
  }
}

Deno.test("the requests of a recording can be measured", () => {
  for (const name of NAMES) {
    const bytes = Deno.readFileSync(new URL(name, FOLDER));
    const times = measureReplay(bytes, { maxTableMemory: MOST_TABLES }, 0);
    assert(typeof times === "object" && times.mapsAndUnmaps > 50 && times.milliseconds > 0);
  }
  assert(NAMES.length > 0);
});
