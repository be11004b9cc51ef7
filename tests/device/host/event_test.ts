import { assertEquals } from "@std/assert";
import { Descriptor, Event, UnixStream } from "../../../device/host/mod.ts";
import { libc } from "../../../device/host/libc.ts";
import { openDescriptors } from "./host_state.ts";

Deno.test("Event tells whether it was signalled and forgets when drained", () => {
  using event = Event.create();
  assertEquals(event.drain(), false);
  event.signal();
  event.signal();
  assertEquals(event.drain(), true);
  assertEquals(event.drain(), false);
});

Deno.test("Event drains without waiting even where the other end made the file blocking", () => {
  const number = libc().eventfd(0, 0);
  const event = Event.adopt(new Descriptor(number))!;
  libc().fcntl(number, 4, 0); // F_SETFL: blocking again, as a hostile peer can
  assertEquals(event.drain(), false);
  event.close();
});

Deno.test("Event signals without waiting when the counter is full", () => {
  const event = Event.adopt(new Descriptor(libc().eventfd(0, 0)))!;
  libc().write(event.descriptor.number, new BigUint64Array([0xffff_ffff_ffff_fffen]), 8n);
  event.signal();
  assertEquals(event.drain(), true);
  event.close();
});

Deno.test("Event adopts event descriptors only and leaves others to the caller", () => {
  const before = openDescriptors();
  const [one, other] = UnixStream.pair();
  assertEquals(Event.adopt(one.descriptor), undefined);
  assertEquals(one.descriptor.isOpen, true);
  one.close();
  other.close();
  assertEquals(openDescriptors(), before);
});
