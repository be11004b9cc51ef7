import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import {
  addressIn,
  createMemoryFile,
  ioctl,
  listSystemFolder,
  lockLimit,
  mapMemoryFile,
  readSystemFile,
  readSystemLink,
} from "../../../device/host/mod.ts";
import { FIONREAD } from "../../../device/host/constants.ts";
import { createPipe, writeNow } from "../../../device/host/stream_io.ts";
import { openDescriptors } from "./host_state.ts";

const ENOENT = 2;
const EBADF = 9;
const EINVAL = 22;
const ENOTTY = 25;

Deno.test("files, links and folders of the system are read, and no descriptor stays open", () => {
  const before = openDescriptors();
  assertStringIncludes(String(readSystemFile("/proc/self/status")), `Pid:\t${Deno.pid}\n`);
  assertEquals(readSystemLink("/proc/self"), String(Deno.pid));
  const names = listSystemFolder("/proc/self/fdinfo");
  assert(Array.isArray(names) && names.includes("0") && !names.includes("."));
  assertEquals(openDescriptors(), before);
});

Deno.test("a folder with more names than fit into one read is listed whole", async () => {
  const folder = await Deno.makeTempDir();
  const names = Array.from({ length: 300 }, (_, i) => `name-${String(i).padStart(3, "0")}`);
  for (const name of names) await Deno.writeTextFile(`${folder}/${name}`, "");
  assertEquals(listSystemFolder(folder), names);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("what is not there is an errno", () => {
  assertEquals(readSystemFile("/sys/nothing"), ENOENT);
  assertEquals(readSystemLink("/sys/nothing"), ENOENT);
  assertEquals(readSystemLink("/proc"), EINVAL);
  assertEquals(listSystemFolder("/sys/nothing"), ENOENT);
});

Deno.test("ioctl() passes the structure both ways and returns the errno", () => {
  const [reader, writer] = createPipe();
  writeNow(writer, new Uint8Array(5), 5);
  const answer = new Uint8Array(4);
  assertEquals(ioctl(reader.number, FIONREAD, answer), 0);
  assertEquals([...answer], [5, 0, 0, 0]);
  using file = createMemoryFile("no-ioctl", 4096);
  assertEquals(ioctl(file.number, 0x3b81, answer), ENOTTY);
  reader.close();
  writer.close();
  assertEquals(ioctl(reader.number, FIONREAD, answer), EBADF);
});

Deno.test("addressIn() is where the bytes of a buffer are", () => {
  using file = createMemoryFile("address", 8192);
  using memory = mapMemoryFile(file, 0, 8192);
  new Uint8Array(memory.buffer)[4096] = 77;
  const pointer = Deno.UnsafePointer.create(BigInt(addressIn(memory.buffer, 4096)));
  assert(pointer !== null);
  assertEquals(new Deno.UnsafePointerView(pointer).getUint8(), 77);
});

Deno.test("lockLimit() is what a shell says, and there is none with CAP_IPC_LOCK", async () => {
  const status = String(readSystemFile("/proc/self/status"));
  const capabilities = BigInt(`0x${/^CapEff:\s*(\w+)$/m.exec(status)![1]}`);
  if ((capabilities >> 14n & 1n) === 1n) return assertEquals(lockLimit(), Infinity);
  const { stdout } = await new Deno.Command("sh", { args: ["-c", "ulimit -l"] }).output();
  const text = new TextDecoder().decode(stdout).trim();
  assertEquals(lockLimit(), text === "unlimited" ? Infinity : Number(text) * 1024);
});
