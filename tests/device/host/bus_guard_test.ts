import { assert, assertEquals } from "@std/assert";
import {
  createMemoryFile,
  Descriptor,
  mapMemoryFile,
  truncations,
} from "../../../device/host/mod.ts";
import { cString, libc } from "../../../device/host/libc.ts";

const PAGE = 4096;
const guarded = Deno.build.arch === "x86_64";

/** A memory file that its maker can truncate at any time: it cannot be sealed. */
function unsealable(size: number): Descriptor {
  const MFD_CLOEXEC = 1;
  const file = new Descriptor(libc().memfdCreate(cString("shrinking"), MFD_CLOEXEC));
  libc().ftruncate(file.number, BigInt(size));
  return file;
}

Deno.test({
  name: "a file that shrinks under its mapping leaves zeros behind, and the process alive",
  ignore: !guarded,
  fn() {
    using file = unsealable(8 * PAGE);
    using memory = mapMemoryFile(file, 0, 8 * PAGE);
    assertEquals(memory.isSafe, true);
    const bytes = new Uint8Array(memory.buffer).fill(7);
    const before = truncations();
    assertEquals(libc().ftruncate(file.number, BigInt(2 * PAGE)), 0);
    assertEquals(bytes[2 * PAGE - 1], 7);
    assertEquals(bytes[2 * PAGE], 0);
    bytes[5 * PAGE + 9] = 1;
    assertEquals(bytes[5 * PAGE + 9], 1);
    new DataView(memory.buffer).setUint32(7 * PAGE, 0x1234);
    assertEquals(new DataView(memory.buffer).getUint32(7 * PAGE), 0x1234);
    assertEquals(Atomics.add(new Int32Array(memory.buffer), 6 * PAGE / 4, 5), 0);
    assertEquals(truncations() - before, 1);
    // From the first page that was missed on, the memory is this process's own.
    libc().ftruncate(file.number, BigInt(8 * PAGE));
    assertEquals(bytes[5 * PAGE + 9], 1);
    assertEquals(bytes.slice(0, PAGE).every((each) => each === 7), true);
  },
});

Deno.test({
  name: "only what is mapped is guarded: the same address afterwards is not",
  ignore: !guarded,
  async fn() {
    const host = new URL("../../../device/host/", import.meta.url).href;
    const script = `
      const { createMemoryFile, mapMemoryFile, Descriptor } = await import("${host}mod.ts");
      const { libc, cString } = await import("${host}libc.ts");
      const guarded = createMemoryFile("x", 4096);
      mapMemoryFile(guarded, 0, 4096).close();
      const file = new Descriptor(libc().memfdCreate(cString("y"), 1));
      libc().ftruncate(file.number, 4096n);
      const place = libc().mmap(null, 4096n, 3, 1, file.number, 0n);
      const bytes = new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(place, 4096));
      libc().ftruncate(file.number, 0n);
      console.log("before");
      console.log(bytes[0]);`;
    const output = await new Deno.Command(Deno.execPath(), { args: ["eval", script] }).output();
    assertEquals(new TextDecoder().decode(output.stdout), "before\n");
    assertEquals(output.signal, "SIGBUS");
  },
});

Deno.test({
  name: "mappings are guarded one by one, in any order of their ends",
  ignore: !guarded,
  fn() {
    const files = [1, 2, 3, 4].map((pages) => unsealable(pages * PAGE));
    const memories = files.map((file, i) => mapMemoryFile(file, 0, (i + 1) * PAGE));
    memories[1].close();
    memories[3].close();
    for (const file of files) libc().ftruncate(file.number, 0n);
    for (const i of [0, 2]) {
      assert(new Uint8Array(memories[i].buffer).every((each) => each === 0));
    }
    for (const each of [...memories, ...files]) each.close();
    using again = createMemoryFile("again", PAGE);
    using memory = mapMemoryFile(again, 0, PAGE);
    assertEquals(new Uint8Array(memory.buffer)[0], 0);
  },
});
