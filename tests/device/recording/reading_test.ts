/**
 * Reading recordings that were cut or damaged (`docs/recording.md`): up to the last whole record, or one line.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { concat } from "@std/bytes";
import fc from "fast-check";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  probeRequest,
  unmapRequest,
} from "../../../device/iommu/driver_requests.ts";
import { readerOf } from "../../../device/recording/recording_reader.ts";
import { Replay } from "../../../device/recording/replay.ts";
import { checkOf, HEAD_WORDS, KIND_NAMES, REQUEST } from "../../../device/recording/wire.ts";
import { isLong } from "../../long_mode.ts";
import { MOST_TABLES, RecordedGuest, replayOf } from "./recorded_guest.ts";

/** A recording with a record of each kind that there may be more than one of. */
function everything(): Uint8Array<ArrayBuffer> {
  const guest = new RecordedGuest();
  const { device, recorder } = guest;
  let time = 0;
  function request(bytes: Uint8Array, room = 4): void {
    recorder.setTime(time += 0.1 * (bytes.length % 5));
    guest.request(bytes, room);
  }
  const listener = { invalidate() {}, invalidateAll() {}, mapped() {} };
  device.iotlbListeners.addRemote(8, listener);
  request(attachRequest(1, 8));
  request(attachRequest(1, 0x48));
  request(probeRequest(8), 28);
  for (let i = 0n; i < 12n; i++) {
    const virtStart = i * 0x3000n;
    request(
      mapRequest({
        domain: 1,
        virtStart,
        virtEnd: virtStart + 0xfffn,
        physStart: i << 12n,
        flags: 3,
      }),
    );
  }
  request(Uint8Array.of(77, 0, 0, 0, 5));
  request(unmapRequest(1, 0n, 0x5fffn));
  request(unmapRequest(1, 0x6800n, 0x6fffn));
  device.iotlbListeners.expect();
  device.iotlbListeners.arrived();
  device.access(8, 6, 2);
  device.refused(0x48, 5, 0x77, 1);
  device.iotlbListeners.remove(8, listener);
  device.loadState(device.saveState());
  recorder.setTime(2 ** 33);
  request(detachRequest(1, 8));
  device.reset("device");
  device.sessionEnds();
  device.disconnected();
  device.queueBegins(0, "new");
  device.writeConfig(Uint8Array.of(0), 36);
  const region = {
    guestAddress: 2 ** 40,
    size: 0x5000,
    buffer: new ArrayBuffer(0x5000),
    offset: 0,
  };
  guest.addMemory(region);
  guest.removeMemory(region);
  recorder.end();
  const bytes = guest.takeBytes();
  guest.close();
  return bytes;
}

const RECORDING = everything();

/** What became of a replay. */
interface Outcome {
  /** What is wrong, in a clause. */
  readonly problem: string | undefined;
  readonly isCut: boolean;
  readonly end: string | undefined;
  readonly requests: number;
}

function replayAnything(bytes: Uint8Array): Outcome {
  const replay = Replay.begin(readerOf(bytes), { maxTableMemory: MOST_TABLES });
  if (typeof replay === "string") {
    return { problem: replay, isCut: false, end: undefined, requests: 0 };
  }
  while (replay.step());
  const { problem, isCut, end, requests: { served: requests } } = replay;
  replay.close();
  return { problem, isCut, end, requests };
}

/** Where each record begins, and the end. */
function borders(bytes: Uint8Array): readonly number[] {
  const reader = readerOf(bytes);
  const found: number[] = [HEAD_WORDS * 4];
  while (reader.next()) found.push(reader.position + reader.count * 4);
  assertEquals(found.at(-1), bytes.length);
  return found;
}

Deno.test("the recording that these tests read has most kinds of records, and replays", () => {
  const reader = readerOf(RECORDING);
  const kinds = new Set<string>();
  while (reader.next()) kinds.add(KIND_NAMES[reader.kind]);
  const missing = KIND_NAMES.filter((name) => name !== "" && !kinds.has(name));
  assertEquals(missing, ["queue stopped", "abandoned request", "pieces"]);
  const { problem, isCut, end, requests } = replayAnything(RECORDING);
  assertEquals([problem, isCut, end], [undefined, false, "serve ended"]);
  assert(requests > 15);
});

Deno.test("a recording that is cut at any byte is read up to its last whole record", () => {
  const ends = borders(RECORDING);
  for (let length = 0; length < RECORDING.length; length++) {
    const reader = readerOf(RECORDING.subarray(0, length));
    while (reader.next());
    if (length < HEAD_WORDS * 4) {
      assertMatch(reader.problem ?? "", /shorter than the head/);
      continue;
    }
    assertEquals(reader.problem, undefined);
    assertEquals(reader.records, ends.findLastIndex((end) => end <= length), `${length} bytes`);
    assertEquals(reader.isCut, true);
    const outcome = replayAnything(RECORDING.subarray(0, length));
    const isConfigured = length >= ends[1];
    assertEquals(outcome.isCut, isConfigured);
    assertEquals(outcome.problem === undefined, isConfigured, outcome.problem);
  }
});

Deno.test("what a disk has made of the rest of a file, zeros or ones, is one line", () => {
  const [, , third] = borders(RECORDING);
  const rest = RECORDING.length - third;
  for (const fill of [0, 0xff]) {
    const bytes = concat([RECORDING.subarray(0, third), new Uint8Array(rest).fill(fill)]);
    assertEquals(replayAnything(bytes).problem, `no record begins at byte ${third}`);
  }
});

Deno.test("a record that is missing, repeated or changed in any bit is found", () => {
  const ends = borders(RECORDING);
  const [first, last] = [ends[4], ends[5]];
  const record = RECORDING.subarray(first, last);
  const without = concat([RECORDING.subarray(0, first), RECORDING.subarray(last)]);
  const twice = concat([RECORDING.subarray(0, last), record, RECORDING.subarray(last)]);
  assertMatch(replayAnything(without).problem ?? "", /fails its check at byte \d+$/);
  assertMatch(replayAnything(twice).problem ?? "", /fails its check at byte \d+$/);
  let undetected = 0;
  for (let bit = 0; bit < record.length * 8; bit++) {
    const bytes = RECORDING.slice();
    bytes[first + (bit >> 3)] ^= 1 << (bit & 7);
    const { problem, isCut } = replayAnything(bytes);
    // A length that reaches beyond the end of the file looks like a cut.
    if (problem === undefined && !isCut) undetected++;
  }
  // A check has 16 bits.
  assert(undetected <= 1, `${undetected} changes`);
});

/** Makes the check of the record at a byte right. */
function sealed(bytes: Uint8Array<ArrayBuffer>, at: number): Uint8Array<ArrayBuffer> {
  const words = new Int32Array(bytes.buffer);
  const count = (words[at / 4] >>> 5) & 2047;
  if (at / 4 + count > words.length) return bytes;
  words[at / 4] &= 0xffff;
  words[at / 4] |= checkOf(words, at / 4, count, at / 4) << 16;
  return bytes;
}

Deno.test("mutated recordings do no harm, with right checks or wrong ones", () => {
  const ends = borders(RECORDING);
  const edit = fc.record({
    record: fc.nat(ends.length - 2),
    word: fc.nat(600),
    value: fc.oneof(fc.integer(), fc.nat(64), fc.constantFrom(-1, 1 << 31, 0x7fffffff)),
    isXor: fc.boolean(),
    isSealed: fc.integer({ min: 0, max: 9 }).map((n) => n > 0),
  });
  fc.assert(
    fc.property(fc.array(edit, { minLength: 1, maxLength: 6 }), (edits) => {
      const bytes = RECORDING.slice();
      const words = new Int32Array(bytes.buffer);
      for (const { record, word, value, isXor, isSealed } of edits) {
        const at = ends[record] / 4;
        const count = ends[record + 1] / 4 - at;
        const place = at + word % count;
        words[place] = isXor ? words[place] ^ value : value;
        if (isSealed) sealed(bytes, ends[record]);
      }
      const { problem } = replayAnything(bytes);
      assert(problem === undefined || !problem.includes("\n"), problem);
    }),
    { numRuns: isLong ? 100_000 : 2000 },
  );
});

Deno.test("configurations with any value in any place do no harm", () => {
  const bytes = RECORDING;
  const reader = readerOf(bytes);
  assert(reader.next());
  const text = new TextDecoder().decode(reader.bytesFrom(3)).replaceAll("\0", "");
  const rest = bytes.subarray(reader.position + reader.count * 4);
  const values = ["-1", "1e99", "0", "null", "[]", "{}", '"x"', "4503599627370495", "0.5", "true"];
  for (
    const [found] of text.matchAll(/(?<=[:,[])(-?\d+|"[^"]*"|true|false|\[|\{)(?=[,}\]:]|\W)/g)
  ) {
    for (const value of values) {
      const changed = new TextEncoder().encode(text.replace(found, value));
      const words = new Int32Array(HEAD_WORDS + 3 + Math.ceil(changed.length / 4));
      const file = new Uint8Array(words.buffer);
      file.set(bytes.subarray(0, HEAD_WORDS * 4));
      words[HEAD_WORDS] = 1 | ((words.length - HEAD_WORDS) << 5);
      words[HEAD_WORDS + 2] = changed.length;
      file.set(changed, (HEAD_WORDS + 3) * 4);
      const { problem } = replayAnything(concat([sealed(file, HEAD_WORDS * 4), rest]));
      assert(problem === undefined || !problem.includes("\n"), problem);
    }
  }
});

Deno.test("an answer that is not the recorded one is named with its request", () => {
  const ends = borders(RECORDING);
  const words = new Int32Array(RECORDING.buffer);
  const requests = ends.filter((end) => (words[end / 4] & 31) === REQUEST);
  // The fourth is the first MAP: 7 is the status FAULT.
  const bytes = RECORDING.slice();
  new Int32Array(bytes.buffer)[requests[3] / 4 + 1] |= 7 << 21;
  const replay = replayOf(sealed(bytes, requests[3]));
  while (replay.step());
  assertMatch(
    replay.requests.difference ?? "",
    /^request 4 at \d+\.\d{6} s, MAP of 0x0-0xfff, domain 1: recorded FAULT in 4 bytes, now OK in 4 bytes$/,
  );
  replay.close();
});
