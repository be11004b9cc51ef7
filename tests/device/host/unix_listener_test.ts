import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  Descriptor,
  pathStatus,
  UnixListener,
  UnixStream,
  WOULD_BLOCK,
} from "../../../device/host/mod.ts";
import { cString, libc } from "../../../device/host/libc.ts";
import { openDescriptors, temporaryPath } from "./host_state.ts";

const ENOENT = 2;

Deno.test("UnixListener accepts connections and removes its socket when closed", () => {
  const before = openDescriptors();
  const path = temporaryPath();
  const listener = UnixListener.listen(path);
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

Deno.test("UnixListener replaces a socket that nobody answers on", () => {
  const path = temporaryPath();
  const dead = UnixListener.listen(path);
  new Descriptor(dead.descriptor.take()).close();
  const listener = UnixListener.listen(path);
  UnixStream.connect(path).close();
  listener.close();
  assertEquals(pathStatus(path), ENOENT);
});

Deno.test("UnixListener refuses a socket that somebody serves, and leaves it alone", () => {
  const path = temporaryPath();
  const listener = UnixListener.listen(path);
  const before = openDescriptors();
  assertThrows(
    () => UnixListener.listen(path),
    RangeError,
    `Cannot listen on ${path}: another process serves it`,
  );
  assertEquals(openDescriptors(), before);
  UnixStream.connect(path).close();
  listener.close();
});

Deno.test("UnixListener refuses a server that is too busy to answer", () => {
  const path = temporaryPath();
  const listener = UnixListener.listen(path);
  const waiting: UnixStream[] = [];
  try {
    for (;;) waiting.push(UnixStream.connect(path));
  } catch {
    assert(waiting.length > 0);
  }
  assertThrows(() => UnixListener.listen(path), RangeError, "another process serves it");
  for (const each of waiting) each.close();
  listener.close();
});

Deno.test("UnixListener never removes what is not a socket", () => {
  assertThrows(() => UnixListener.listen("/tmp"), RangeError, "not a socket is there");
  assertThrows(() => UnixListener.listen("/proc/version/x"), RangeError, "ENOTDIR");
  assert(typeof pathStatus("/tmp") !== "number");
});

Deno.test("UnixListener leaves a socket alone that has taken its place", () => {
  const path = temporaryPath();
  const first = UnixListener.listen(path);
  libc().unlink(cString(path));
  const second = UnixListener.listen(path);
  first.close();
  UnixStream.connect(path).close();
  second.close();
  assertEquals(pathStatus(path), ENOENT);
});
