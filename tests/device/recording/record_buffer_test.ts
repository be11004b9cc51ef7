/** The memory between a recording and its file: order, limits, and an end that is always in the file. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { attachRequest, mapRequest, unmapRequest } from "../../../device/iommu/driver_requests.ts";
import { RecordBuffer } from "../../../device/recording/record_buffer.ts";
import { readerOf } from "../../../device/recording/recording_reader.ts";
import { Recorder } from "../../../device/recording/recorder.ts";
import {
  ENDED,
  FAULT,
  LIMIT_REACHED,
  RECORD_WORDS,
  STATE,
  TOO_SLOW,
} from "../../../device/recording/wire.ts";
import { bytesOf, RecordedGuest, replayAll, SMALL_OPTIONS } from "./recorded_guest.ts";

/** The records of a file: kind and first own word of each. */
function recordsOf(bytes: Uint8Array): readonly (readonly [number, number])[] {
  const reader = readerOf(bytes);
  const found: [number, number][] = [];
  while (reader.next()) found.push([reader.kind, reader.word(2)]);
  assertEquals([reader.problem, reader.isCut], [undefined, false]);
  return found;
}

Deno.test("records and bytes of any size come out in order, however they are taken", () => {
  const put = fc.oneof(
    { weight: 4, arbitrary: fc.record({ faults: fc.integer({ min: 1, max: 30_000 }) }) },
    { weight: 2, arbitrary: fc.record({ bytes: fc.nat(40_000) }) },
    { weight: 3, arbitrary: fc.constant({ take: true }) },
  );
  fc.assert(
    fc.property(fc.array(put, { maxLength: 12 }), (puts) => {
      const buffer = new RecordBuffer();
      const recorder = new Recorder(buffer, "{}", 0);
      const pieces: Uint8Array[] = [];
      const expected: number[] = [];
      let number = 0;
      function take(): void {
        const piece = buffer.take();
        if (piece === undefined) return;
        pieces.push(piece.slice());
        buffer.written();
      }
      for (const each of puts) {
        if ("take" in each) take();
        if ("faults" in each) {
          for (let i = 0; i < each.faults; i++) {
            recorder.fault(++number, 1, 2, 1);
            expected.push(number);
          }
        }
        if ("bytes" in each) recorder.state(new Uint8Array(each.bytes).fill(7));
      }
      recorder.end();
      assertEquals(buffer.over, ENDED);
      while (!buffer.isEmpty) take();
      const file = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
      pieces.reduce((at, piece) => (file.set(piece, at), at + piece.length), 0);
      const found = recordsOf(file);
      assertEquals(found.filter(([kind]) => kind === FAULT).map(([, word]) => word), expected);
      const states = puts.flatMap((each) => "bytes" in each ? [each.bytes] : []);
      const firsts = found.filter(([kind], i) =>
        kind === STATE && (found[i - 1][0] !== STATE || found[i - 1][1] <= 8176)
      );
      assertEquals(firsts.map(([, left]) => left), states);
    }),
    { numRuns: 40 },
  );
});

Deno.test("a recording ends at its size limit, with a record that says so, and nothing comes behind it", () => {
  for (const limit of [64 << 10, 600_000, 2 ** 20 + 4]) {
    const guest = new RecordedGuest(SMALL_OPTIONS, { limit });
    guest.request(attachRequest(1, 8), 4);
    const map = mapRequest({
      domain: 1,
      virtStart: 0n,
      virtEnd: 0xfffn,
      physStart: 0n,
      flags: 3,
    });
    const bytes: Uint8Array[] = [];
    while (guest.buffer.over === undefined) {
      for (let i = 0; i < 100; i++) {
        guest.request(map, 4);
        guest.request(unmapRequest(1, 0n, 0xfffn), 4);
      }
      bytes.push(guest.takeBytes());
    }
    guest.request(map, 4);
    bytes.push(guest.takeBytes());
    assertEquals(guest.buffer.over, LIMIT_REACHED);
    const file = new Uint8Array(bytes.flatMap((piece) => [...piece]));
    assert(file.length <= limit && file.length > limit - 256, `${file.length} of ${limit} bytes`);
    const replay = replayAll(file);
    assertEquals(replay.end, "its size limit was reached");
    assertEquals(replay.requests.difference, undefined);
    replay.close();
    guest.close();
  }
});

Deno.test("a recording that is not written to its file ends when its memory is full, and the guest goes on", () => {
  const buffer = new RecordBuffer();
  const recorder = new Recorder(buffer, "{}", 0);
  let count = 0;
  while (buffer.over === undefined) {
    recorder.fault(++count, 1, 2, 1);
    assert(count < 10 ** 6);
  }
  assertEquals(buffer.over, TOO_SLOW);
  for (let i = 0; i < 1000; i++) recorder.fault(0, 1, 2, 1);
  recorder.end();
  const records = recordsOf(bytesOf(buffer));
  // The configuration is before them, the end behind them.
  assertEquals(records.length, count - 1 + 2);
  assertEquals(records.at(-1)?.[1], TOO_SLOW);
  assert(count * RECORD_WORDS[FAULT] * 4 > 3 << 20);
});

Deno.test("a state that would not fit under the size limit ends the recording before it", () => {
  const buffer = new RecordBuffer(64 << 10);
  const recorder = new Recorder(buffer, "{}", 0);
  recorder.state(new Uint8Array(65 << 10));
  assertEquals(buffer.over, LIMIT_REACHED);
  assertEquals(recordsOf(bytesOf(buffer)).length, 2);
});
