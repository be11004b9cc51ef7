import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  ChildProcess,
  createMemoryFile,
  createPipe,
  type Descriptor,
  OsError,
  ownCommand,
  readNow,
} from "../../../device/host/mod.ts";
import { until } from "../../until.ts";
import { openDescriptors } from "./host_state.ts";

/** All that comes out of a pipe. */
async function readAll(reader: Descriptor): Promise<string> {
  const piece = new Uint8Array(4096);
  let text = "";
  await until(() => {
    const count = readNow(reader, piece, piece.length);
    if (count > 0) text += new TextDecoder().decode(piece.subarray(0, count));
    return count === 0;
  }, "the pipe ends");
  return text;
}

Deno.test("a child process has the descriptors that it was given, its arguments and this environment", async () => {
  const before = openDescriptors();
  const [reader, writer] = createPipe();
  using file = createMemoryFile("not-inherited", 4096);
  const script = 'echo "$0 $1"; echo "$PATH"; ls -l /proc/self/fd | grep -c inherited; exit 7';
  const child = ChildProcess.start(
    "/bin/sh",
    ["sh", "-c", script, "zero", "one and two"],
    new Map([[writer.number, 1]]),
  );
  writer.close();
  const [args, path, descriptors] = (await readAll(reader)).split("\n");
  assertEquals([args, path], ["zero one and two", Deno.env.get("PATH")]);
  assertEquals(descriptors, "0", "what is not given is closed on exec");
  await until(() => child.end !== undefined, "it ends");
  assertEquals(child.end, { code: 7 });
  reader.close();
  file.close();
  assertEquals(openDescriptors(), before);
});

Deno.test("a child process has a process group of its own, and its end by a signal is told", async () => {
  const child = ChildProcess.start("/bin/sleep", ["sleep", "1000"], new Map());
  const group = () => Deno.readTextFileSync(`/proc/${child.pid}/stat`).split(") ")[1].split(" ")[2];
  const [itsGroup, end] = [Number(group()), child.end];
  child.kill(15);
  assertEquals([itsGroup, end], [child.pid, undefined]);
  await until(() => child.end !== undefined, "it ends");
  assertEquals(child.end, { signal: 15 });
});

Deno.test("a program that is not there is an error of the host", () => {
  const error = assertThrows(
    () => ChildProcess.start("/nowhere/at-all", ["x"], new Map()),
    OsError,
  );
  assertEquals([error.call, error.code], ["posix_spawn", "ENOENT"]);
});

Deno.test("the command of this process is that which Deno was started with", () => {
  const command = ownCommand();
  assert(command[0].endsWith("deno"), command[0]);
  assert(command.includes("test"), command.join(" "));
});
