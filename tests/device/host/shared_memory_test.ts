import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  createMemoryFile,
  createPipe,
  Descriptor,
  Event,
  mapMemoryFile,
  sealMemoryFile,
  SharedMemory,
} from "../../../device/host/mod.ts";
import { F_ADD_SEALS, F_GET_SEALS } from "../../../device/host/constants.ts";
import { cString, libc, replaceLibc } from "../../../device/host/libc.ts";
import { failAsPlanned, FailurePlan } from "./failing_libc.ts";
import { mappingsOf, openDescriptors } from "./host_state.ts";

const PAGE = 4096;

Deno.test("SharedMemory maps the same bytes for every owner of the file", () => {
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
  const mapped = mappingsOf("detach-test");
  using file = createMemoryFile("detach-test", PAGE);
  using memory = mapMemoryFile(file, 0, PAGE);
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
  assertEquals(mappingsOf("detach-test"), mapped);
  memory.close();
});

Deno.test("SharedMemory seals the file against shrinking where the file allows", () => {
  using file = createMemoryFile("seal-test", 2 * PAGE);
  using memory = mapMemoryFile(file, 0, PAGE);
  assertEquals(memory.isSafe, true);
  assertEquals(libc().ftruncate(file.number, 0n), -1);
});

Deno.test("SharedMemory.map() says in a line why a file cannot be mapped", () => {
  const mapped = mappingsOf("reason-test");
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
  assertEquals(mappingsOf("reason-test"), mapped);
  file.close();
  assert(SharedMemory.map(file, 0, PAGE) === "its status cannot be read: EBADF");
  event.close();
  assertEquals(openDescriptors(), before);
});

Deno.test("SharedMemory asks for the size once the file is sealed: it cannot have shrunk since", () => {
  const mapped = mappingsOf("race-test");
  using file = createMemoryFile("race-test", 4 * PAGE);
  const real = libc();
  // The peer truncates at the last moment at which it can.
  replaceLibc({
    ...real,
    fcntl: (number, command, argument) => {
      if (command === F_ADD_SEALS) real.ftruncate(number, BigInt(PAGE));
      return real.fcntl(number, command, argument);
    },
  });
  try {
    const answer = SharedMemory.map(file, 0, 4 * PAGE);
    assertEquals(answer, "it ends at 4096, before offset 0 + size 16384");
  } finally {
    replaceLibc(undefined);
  }
  assertEquals(mappingsOf("race-test"), mapped);
});

/** Opens a path to be read and written. */
function open(path: string): Descriptor {
  const O_RDWR = 2;
  return new Descriptor(libc().open(cString(path), O_RDWR, 0));
}

Deno.test("SharedMemory takes what memory back ends of QEMU are: memfd, with huge pages or not, and tmpfs", async () => {
  const path = await Deno.makeTempFile({ dir: "/dev/shm" });
  try {
    const MFD_HUGETLB = 4;
    await Deno.truncate(path, 2 * PAGE);
    using file = open(path);
    using memory = mapMemoryFile(file, 0, 2 * PAGE);
    assertEquals(memory.buffer.byteLength, 2 * PAGE);
    using huge = new Descriptor(libc().memfdCreate(cString("huge-test"), MFD_HUGETLB));
    libc().ftruncate(huge.number, 2n << 20n);
    const status = SharedMemory.status(huge);
    assert(typeof status !== "string" && status.size === 2 << 20, `${status}`);
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("SharedMemory refuses a file whose pages may take as long as its file system likes", async () => {
  const path = await Deno.makeTempFile({ dir: "." });
  try {
    await Deno.truncate(path, 2 * PAGE);
    using file = open(path);
    // Where the working directory is on tmpfs itself, this is memory.
    if (libc().fcntl(file.number, F_GET_SEALS, 0) >= 0) return;
    const refusal = "it is not a memory file: neither a memfd nor on tmpfs or hugetlbfs";
    assertEquals(SharedMemory.map(file, 0, PAGE), refusal);
    SharedMemory.allowsAnyFile = true;
    using memory = mapMemoryFile(file, 0, PAGE);
    assertEquals(memory.buffer.byteLength, PAGE);
    const [reader, writer] = createPipe();
    assertEquals(SharedMemory.map(reader, 0, PAGE), "it is not a memory file");
    reader.close();
    writer.close();
  } finally {
    SharedMemory.allowsAnyFile = false;
    await Deno.remove(path);
  }
});

Deno.test("SharedMemory asks no file system what a descriptor is", () => {
  const real = libc();
  const [reader, writer] = createPipe();
  let asked = 0;
  replaceLibc({ ...real, statx: (...args) => (asked++, real.statx(...args)) });
  try {
    assertEquals(typeof SharedMemory.map(reader, 0, PAGE), "string");
    assertEquals(asked, 0);
  } finally {
    replaceLibc(undefined);
    reader.close();
    writer.close();
  }
});

Deno.test("SharedMemory that cannot be unmapped is unmapped with the next", () => {
  const mapped = mappingsOf("stubborn-test");
  using file = createMemoryFile("stubborn-test", PAGE);
  const [first, second] = [mapMemoryFile(file, 0, PAGE), mapMemoryFile(file, 0, PAGE)];
  const plan = new FailurePlan();
  {
    using _failing = failAsPlanned(plan);
    plan.fail("munmap", 12, 1);
    first.close();
  }
  assertEquals(first.buffer.detached, true);
  assertEquals(mappingsOf("stubborn-test").length, mapped.length + 2);
  second.close();
  assertEquals(mappingsOf("stubborn-test"), mapped);
});

Deno.test("sealMemoryFile makes size and seals of a file final", () => {
  using file = createMemoryFile("sealed-test", 2 * PAGE);
  using memory = mapMemoryFile(file, 0, 2 * PAGE);
  sealMemoryFile(file);
  assertEquals(libc().ftruncate(file.number, 0n), -1);
  assertEquals(libc().ftruncate(file.number, BigInt(3 * PAGE)), -1);
  assertThrows(() => sealMemoryFile(file), Error, "EPERM");
  new Uint8Array(memory.buffer)[0] = 1;
});

Deno.test("SharedMemory keeps the file of a mapping open while it exists, if asked to", () => {
  const before = openDescriptors();
  const file = createMemoryFile("kept-test", 4 * PAGE);
  using unkept = mapMemoryFile(file, 0, PAGE);
  SharedMemory.keepsFiles = true;
  try {
    const memory = mapMemoryFile(file, 2 * PAGE, PAGE);
    const kept = SharedMemory.fileOf(memory.buffer);
    assert(kept !== undefined);
    assertEquals(kept.offset, 2 * PAGE);
    file.close();
    using again = mapMemoryFile(kept.descriptor, kept.offset, PAGE);
    new Uint8Array(again.buffer)[3] = 42;
    assertEquals(new Uint8Array(memory.buffer)[3], 42);
    memory.close();
    assertEquals(kept.descriptor.isOpen, false);
    assertEquals(SharedMemory.fileOf(unkept.buffer), undefined);
  } finally {
    SharedMemory.keepsFiles = false;
  }
  assertEquals(openDescriptors(), before);
});

Deno.test("SharedMemory that cannot keep a file, or not map it, keeps no descriptor", () => {
  using file = createMemoryFile("kept-test", PAGE);
  const before = openDescriptors();
  const plan = new FailurePlan();
  SharedMemory.keepsFiles = true;
  try {
    using _failing = failAsPlanned(plan);
    plan.fail("mmap", 12, 1);
    assertEquals(SharedMemory.map(file, 0, PAGE), "it cannot be mapped: ENOMEM");
    const real = libc();
    replaceLibc({
      ...real,
      fcntl: (number, command, value) => command === 1030 ? -1 : real.fcntl(number, command, value),
    });
    const refused = SharedMemory.map(file, 0, PAGE);
    assert(typeof refused === "string" && refused.startsWith("it cannot be kept: "));
  } finally {
    SharedMemory.keepsFiles = false;
  }
  assertEquals(openDescriptors(), before);
});
