import { assertEquals, assertThrows } from "@std/assert";
import {
  createPipe,
  FAILED,
  isUnixStream,
  readNow,
  UnixStream,
  WOULD_BLOCK,
  writeNow,
} from "../../../device/host/mod.ts";
import { openDescriptors } from "./host_state.ts";

Deno.test("readNow() and writeNow() never wait on a blocking pipe", () => {
  const before = openDescriptors();
  const [reader, writer] = createPipe();
  const bytes = new Uint8Array(65536).fill(3);
  assertEquals(readNow(reader, bytes, 16), WOULD_BLOCK);
  let written = 0;
  for (;;) {
    const count = writeNow(writer, bytes, bytes.length);
    if (count === WOULD_BLOCK) break;
    written += count;
  }
  let read = 0;
  for (;;) {
    const count = readNow(reader, bytes, bytes.length);
    if (count === WOULD_BLOCK) break;
    read += count;
  }
  assertEquals(read, written);
  writer.close();
  assertEquals(readNow(reader, bytes, 1), 0);
  reader.close();
  assertEquals(openDescriptors(), before);
});

Deno.test("readNow() and writeNow() survive a peer that is gone and the wrong end of a pipe", () => {
  const [reader, writer] = createPipe();
  const byte = new Uint8Array(1);
  assertEquals(readNow(writer, byte, 1), FAILED);
  assertEquals(writeNow(reader, byte, 1), FAILED);
  reader.close();
  assertEquals(writeNow(writer, byte, 1), FAILED);
  writer.close();
  const [one, other] = UnixStream.pair();
  other.close();
  assertEquals(writeNow(one.descriptor, byte, 1), FAILED);
  assertEquals(readNow(one.descriptor, byte, 1), 0);
  one.close();
  assertThrows(() => readNow(one.descriptor, byte, 2), RangeError, "with a buffer of 1");
});

Deno.test("isUnixStream() tells a unix stream socket from anything else", () => {
  const [one, other] = UnixStream.pair();
  const [reader, writer] = createPipe();
  assertEquals(isUnixStream(one.descriptor), true);
  assertEquals(isUnixStream(reader), false);
  for (const each of [one, other, reader, writer]) each.close();
  assertEquals(isUnixStream(reader), false);
});
