import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  activatedListener,
  createMemoryFile,
  inheritedSocket,
  UnixListener,
  UnixStream,
} from "../../../device/host/mod.ts";
import { libc } from "../../../device/host/libc.ts";
import { temporaryPath } from "./host_state.ts";

Deno.test("inheritedSocket() refuses numbers that were not inherited", () => {
  assertThrows(() => inheritedSocket(-1), RangeError, "Cannot use descriptor -1: it is no");
  assertThrows(() => inheritedSocket(3.5), RangeError, "it is no descriptor number");
  assertThrows(() => inheritedSocket(2 ** 31), RangeError, "it is no descriptor number");
  assertThrows(() => inheritedSocket(999), RangeError, "Cannot use descriptor 999: EBADF");
});

Deno.test("inheritedSocket() refuses what is not a unix stream socket", () => {
  using file = createMemoryFile("inherited", 4096);
  assertThrows(() => inheritedSocket(file.number), RangeError, "it is not a socket");
  file.close();
  const AF_INET = 2;
  for (const [domain, type] of [[AF_INET, 1], [1, 2], [1, 5]]) {
    const number = libc().socket(domain, type, 0);
    assertThrows(() => inheritedSocket(number), RangeError, "not a unix stream socket");
    libc().close(number);
  }
});

Deno.test("inheritedSocket() refuses a socket that is neither connected nor listening", () => {
  const number = libc().socket(1, 1, 0);
  assertThrows(() => inheritedSocket(number), RangeError, "it is not connected");
  libc().close(number);
});

Deno.test("inheritedSocket() refuses the runtime's own socket pairs", () => {
  const [one, other] = UnixStream.pair();
  assertThrows(
    () => inheritedSocket(one.descriptor.number),
    RangeError,
    "it belongs to the runtime",
  );
  assertEquals(one.descriptor.isOpen, true);
  one.close();
  other.close();
});

Deno.test("inheritedSocket() takes a connection to another process", async () => {
  const path = temporaryPath();
  using listener = UnixListener.listen(path);
  const module = new URL("../../../device/host/mod.ts", import.meta.url).href;
  const script = `const { UnixStream } = await import("${module}");
    UnixStream.connect("${path}").send(Uint8Array.of(42), 0, 1); await Deno.stdin.read(new Uint8Array(1));`;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["eval", script],
    stdin: "piped",
  }).spawn();
  let accepted = listener.accept();
  while (accepted === undefined) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    accepted = listener.accept();
  }
  const target = new Uint8Array(1);
  while (accepted.receive(target, 0, 1) < 0) await new Promise((resolve) => setTimeout(resolve, 5));
  const stream = inheritedSocket(accepted.descriptor.take());
  assert(stream instanceof UnixStream);
  assertEquals(target[0], 42);
  await child.stdin.close();
  await child.status;
  stream.close();
});

Deno.test("inheritedSocket() tells a listening socket from a connected one", () => {
  const path = temporaryPath();
  using listener = UnixListener.listen(path);
  const copy = listener.descriptor.duplicate();
  const adopted = inheritedSocket(copy.take());
  assert(adopted instanceof UnixListener);
  UnixStream.connect(path).close();
  const stream = adopted.accept();
  assert(stream !== undefined);
  stream.close();
  adopted.close();
  UnixStream.connect(path).close(); // its file is not the adopter's to remove
});

Deno.test("activatedListener() looks only at sockets that are meant for this process", () => {
  assertEquals(activatedListener({ count: undefined, process: undefined }), undefined);
  assertEquals(activatedListener({ count: "1", process: "1" }), undefined);
  assertThrows(
    () => activatedListener({ count: "2", process: String(Deno.pid) }),
    RangeError,
    "one is needed, 2 were passed",
  );
});
