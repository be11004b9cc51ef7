import { assert, assertEquals, assertThrows } from "@std/assert";
import { createMemoryFile, Event, mapMemoryFile, SharedMemory } from "../../../device/host/mod.ts";
import { libc } from "../../../device/host/libc.ts";
import { mappingsOf, openDescriptors } from "./host_state.ts";

const PAGE = 4096;

Deno.test("SharedMemory maps the same bytes for everybody who has the file", () => {
  using file = createMemoryFile("shared-test", 4 * PAGE);
  using one = mapMemoryFile(file, 0, 4 * PAGE);
  using other = mapMemoryFile(file, 2 * PAGE, PAGE);
  new Uint8Array(one.buffer)[2 * PAGE + 5] = 0xab;
  assertEquals(new Uint8Array(other.buffer)[5], 0xab);
  assertEquals(other.buffer.byteLength, PAGE);
});

Deno.test("SharedMemory starts anywhere, not only at a page", () => {
  using file = createMemoryFile("shared-test", 4 * PAGE);
  using whole = mapMemoryFile(file, 0, 4 * PAGE);
  using part = mapMemoryFile(file, PAGE + 8, 2 * PAGE);
  new Uint8Array(whole.buffer).set([1, 2, 3], PAGE + 8);
  assertEquals([...new Uint8Array(part.buffer, 0, 3)], [1, 2, 3]);
  assertEquals(part.buffer.byteLength, 2 * PAGE);
});

Deno.test("SharedMemory beyond 4 GiB can be read and written at both ends", () => {
  const size = 6 * 2 ** 30;
  using file = createMemoryFile("large-test", size);
  using memory = mapMemoryFile(file, 0, size);
  const bytes = new Uint8Array(memory.buffer);
  bytes[size - 1] = 7;
  bytes[0] = 9;
  using tail = mapMemoryFile(file, size - PAGE, PAGE);
  assertEquals(new Uint8Array(tail.buffer)[PAGE - 1], 7);
  assertEquals(bytes.length, size);
});

Deno.test("SharedMemory.close() leaves no way to the memory: every view is empty or throws", () => {
  using file = createMemoryFile("detach-test", PAGE);
  const memory = mapMemoryFile(file, 0, PAGE);
  const bytes = new Uint8Array(memory.buffer);
  const words = new Int32Array(memory.buffer);
  const data = new DataView(memory.buffer);
  bytes[0] = 1;
  memory.close();
  assertEquals(bytes.length, 0);
  assertEquals(bytes[0], undefined);
  bytes[0] = 2;
  assertThrows(() => data.getUint8(0), TypeError);
  assertThrows(() => Atomics.load(words, 0), TypeError);
  assertEquals(mappingsOf("detach-test"), []);
  memory.close();
});

Deno.test("SharedMemory seals the file against shrinking where the file allows", () => {
  using file = createMemoryFile("seal-test", 2 * PAGE);
  using memory = mapMemoryFile(file, 0, PAGE);
  assertEquals(memory.isSafe, true);
  assertEquals(libc().ftruncate(file.number, 0n), -1);
});

Deno.test("SharedMemory.map() says in a line why a file cannot be mapped", () => {
  const before = openDescriptors();
  using file = createMemoryFile("reason-test", 2 * PAGE);
  using event = Event.create();
  const cases: [string | SharedMemory, string][] = [
    [SharedMemory.map(event.descriptor, 0, PAGE), "not a memory file"],
    [SharedMemory.map(file, 0, 0), "size of 0"],
    [SharedMemory.map(file, 0, 2 * PAGE + 1), "it ends at 8192"],
    [SharedMemory.map(file, PAGE, 2 * PAGE), "it ends at 8192"],
    [SharedMemory.map(file, 2 ** 52, PAGE), "it ends at 8192"],
    [SharedMemory.map(file, 4, PAGE), "not a multiple of 8"],
    [SharedMemory.map(file, -8, PAGE), "not a multiple of 8"],
    [SharedMemory.map(file, 0, NaN), "size of NaN"],
  ];
  for (const [answer, reason] of cases) {
    assert(typeof answer === "string" && answer.includes(reason), `${answer} / ${reason}`);
  }
  assertEquals(mappingsOf("reason-test"), []);
  file.close();
  assert(SharedMemory.map(file, 0, PAGE) === "its status cannot be read: EBADF");
  event.close();
  assertEquals(openDescriptors(), before);
});
