import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  CLOSED,
  Descriptor,
  Event,
  OsError,
  UnixListener,
  UnixStream,
  WOULD_BLOCK,
} from "../../../device/host/mod.ts";
import { pathStatus } from "../../../device/host/file_status.ts";
import { cString, libc } from "../../../device/host/libc.ts";
import { RLIMIT_NOFILE } from "../../../device/host/constants.ts";
import { until } from "../../until.ts";
import { failAsPlanned, FailurePlan } from "./failing_libc.ts";
import { openDescriptors, temporaryPath } from "./host_state.ts";

const ENOENT = 2;
const EMFILE = 24;

/** What is in a folder that is removed at the end. */
class Folder implements Disposable {
  readonly path: string = Deno.makeTempDirSync();

  get names(): readonly string[] {
    return [...Deno.readDirSync(this.path)].map(({ name }) => name).sort();
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.path, { recursive: true });
  }
}

Deno.test("UnixListener accepts connections and removes its socket when closed", () => {
  const before = openDescriptors();
  const path = temporaryPath();
  using listener = UnixListener.listen(path);
  assertEquals(listener.accept(), undefined);
  const client = UnixStream.connect(path);
  const server = listener.accept()!;
  client.send(Uint8Array.of(7), 0, 1);
  const target = new Uint8Array(4);
  assertEquals(server.receive(target, 0, 4), 1);
  assertEquals(server.receive(target, 0, 4), WOULD_BLOCK);
  client.close();
  server.close();
  listener.close();
  listener.close();
  assertEquals(pathStatus(path), ENOENT);
  assertEquals(openDescriptors(), before);
});

Deno.test("UnixListener replaces a socket that no process serves", () => {
  const path = temporaryPath();
  using dead = UnixListener.listen(path);
  new Descriptor(dead.descriptor.take()).close();
  using listener = UnixListener.listen(path);
  UnixStream.connect(path).close();
  listener.close();
  assertEquals(pathStatus(path), ENOENT);
});

Deno.test("UnixListener refuses a socket that a process serves, and does not change it", () => {
  const path = temporaryPath();
  using _listener = UnixListener.listen(path);
  const before = openDescriptors();
  assertThrows(
    () => UnixListener.listen(path),
    RangeError,
    `Cannot listen on ${path}: another process serves it`,
  );
  assertEquals(openDescriptors(), before);
  UnixStream.connect(path).close();
});

Deno.test("UnixListener refuses a server that is too busy to answer", () => {
  const path = temporaryPath();
  using _listener = UnixListener.listen(path);
  const waiting: UnixStream[] = [];
  try {
    for (;;) waiting.push(UnixStream.connect(path));
  } catch {
    assert(waiting.length > 0);
  }
  assertThrows(() => UnixListener.listen(path), RangeError, "another process serves it");
  for (const each of waiting) each.close();
});

Deno.test("UnixListener never removes what is not a socket", () => {
  assertThrows(() => UnixListener.listen("/tmp"), RangeError, "not a socket is there");
  assertThrows(() => UnixListener.listen("/proc/version/x"), RangeError, "ENOTDIR");
  assert(typeof pathStatus("/tmp") !== "number");
});

Deno.test("UnixListener leaves a socket alone that has taken its place", () => {
  const path = temporaryPath();
  using first = UnixListener.listen(path);
  libc().unlink(cString(path));
  using second = UnixListener.listen(path);
  first.close();
  UnixStream.connect(path).close();
  second.close();
  assertEquals(pathStatus(path), ENOENT);
});

Deno.test("what finds a new socket can connect: there is no moment at which it is refused", async () => {
  using folder = new Folder();
  const paths = Array.from({ length: 400 }, (_, i) => `${folder.path}/${i}.sock`);
  const program = new URL("eager_client.ts", import.meta.url).pathname;
  const client = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--allow-ffi", program, ...paths],
    stdout: "piped",
  }).output();
  for (const path of paths) {
    using listener = UnixListener.listen(path);
    await until(() => {
      const stream = listener.accept();
      stream?.close();
      return stream !== undefined;
    }, `the client has come to ${path}`);
  }
  const outcomes = new TextDecoder().decode((await client).stdout).trim().split("\n");
  assertEquals(new Set(outcomes), new Set(["connected"]));
  assertEquals(folder.names, []);
});

Deno.test("listening leaves nothing beside the socket, and a failure nothing at all", () => {
  using folder = new Folder();
  const before = openDescriptors();
  const path = `${folder.path}/a.sock`;
  using listener = UnixListener.listen(path);
  assertEquals(folder.names, ["a.sock"]);
  assertThrows(() => UnixListener.listen(path), RangeError, "another process serves it");
  assertThrows(() => UnixListener.listen(`${folder.path}/b/c.sock`), OsError, "bind");
  Deno.writeTextFileSync(`${folder.path}/file`, "");
  assertThrows(() => UnixListener.listen(`${folder.path}/file`), RangeError, "not a socket");
  assertEquals(folder.names, ["a.sock", "file"]);
  new Descriptor(listener.descriptor.take()).close();
  using next = UnixListener.listen(path);
  UnixStream.connect(path).close();
  next.close();
  assertEquals(folder.names, ["file"]);
  assertEquals(openDescriptors(), before);
});

Deno.test("UnixListener listens at paths of every length that a socket can have", () => {
  using folder = new Folder();
  const room = 107 - folder.path.length - 1;
  for (const length of [1, 2, 11, 12, 13, room - 1, room]) {
    const path = `${folder.path}/${"s".repeat(length)}`;
    using listener = UnixListener.listen(path);
    UnixStream.connect(path).close();
    assertEquals(folder.names, ["s".repeat(length)]);
    listener.close();
  }
  // A folder that leaves room for one byte only.
  const deep = `${folder.path}/${"d".repeat(room - 2)}`;
  Deno.mkdirSync(deep);
  const listeners = ["a", "b", "c"].map((name) => UnixListener.listen(`${deep}/${name}`));
  assertEquals([...Deno.readDirSync(deep)].map(({ name }) => name).sort(), ["a", "b", "c"]);
  for (const each of listeners) each.close();
  assertThrows(() => UnixListener.listen(`${deep}/ab`), RangeError, "more than 107 bytes");
  assertThrows(() => UnixListener.listen(`${deep}x/`), OsError, "bind");
});

Deno.test("UnixListener is left alone for a moment when the host cannot accept, and says why", async () => {
  const plan = new FailurePlan();
  const path = temporaryPath();
  using listener = UnixListener.listen(path);
  const client = UnixStream.connect(path);
  try {
    using _failing = failAsPlanned(plan);
    for (const error of [1, 5, 12, 22, EMFILE, 23, 105]) {
      const problems: string[] = [];
      listener.onProblem = (line) => problems.push(line);
      const rested = new Promise<void>((resolve) => listener.onRested = resolve);
      plan.fail("accept4", error, 1);
      assertEquals(listener.accept(), undefined);
      assertEquals(plan.end(), 1);
      assertEquals(listener.pollNumber, -1);
      assertEquals(problems.length, 1);
      if (error === EMFILE) {
        assertEquals(problems, ["Cannot accept a connection: accept4 failed: EMFILE"]);
      }
      await rested;
      assertEquals(listener.pollNumber, listener.descriptor.number);
    }
    // EAGAIN, EINTR, ECONNABORTED: there was nothing.
    for (const error of [4, 11, 103]) {
      plan.fail("accept4", error, 1);
      assertEquals(listener.accept(), undefined);
      assertEquals(listener.pollNumber, listener.descriptor.number);
    }
    listener.accept()!.close();
  } finally {
    client.close();
    listener.close();
  }
});

Deno.test("UnixListener gives no connection one of the last 16 descriptors of the process", async () => {
  const library = Deno.dlopen("libc.so.6", {
    setrlimit: { parameters: ["i32", "buffer"], result: "i32" },
  });
  const limits = new BigUint64Array(2);
  libc().getrlimit(RLIMIT_NOFILE, limits);
  const path = temporaryPath();
  using listener = UnixListener.listen(path);
  const clients: UnixStream[] = [];
  const accepted: UnixStream[] = [];
  const problems: string[] = [];
  listener.onProblem = (line) => problems.push(line);
  // Fills the gaps that other tests have left below, so that every number from here on is free.
  const open = await Array.fromAsync(Deno.readDir("/proc/self/fd"), ({ name }) => Number(name));
  const highest = Math.max(...open);
  const fillers = [Event.create()];
  while (fillers.at(-1)!.descriptor.number < highest) fillers.push(Event.create());
  try {
    const first = UnixStream.connect(path);
    clients.push(first);
    const lowest = listener.accept()!;
    accepted.push(lowest);
    // Two descriptors for each connection, here.
    const limit = lowest.descriptor.number + 16 + 9;
    library.symbols.setrlimit(RLIMIT_NOFILE, new BigUint64Array([BigInt(limit), limits[1]]));
    while (problems.length === 0) {
      clients.push(UnixStream.connect(path));
      const stream = listener.accept();
      if (stream !== undefined) accepted.push(stream);
    }
    assertEquals(problems, ["Cannot accept a connection: fewer than 16 descriptors are left"]);
    assert(accepted.length > 1 && accepted.length <= 6, `${accepted.length}`);
    for (const { descriptor } of accepted) assert(descriptor.number < limit - 16);
    assertEquals(listener.pollNumber, -1);
    // The one that got none is told so, and does not wait.
    await until(() => clients.at(-1)!.receive(new Uint8Array(1), 0, 1) === CLOSED, "it is closed");
    accepted.pop()!.close();
    clients.splice(1, 2).forEach((each) => each.close());
    clients.push(UnixStream.connect(path));
    accepted.push(listener.accept()!);
  } finally {
    library.symbols.setrlimit(RLIMIT_NOFILE, limits);
    for (const each of [...clients, ...accepted, ...fillers]) each.close();
    listener.close();
    library.close();
  }
});
