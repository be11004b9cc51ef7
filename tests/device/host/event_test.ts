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

/** Flags of eventfd(2), and a counter that has no room for one more. */
const SEMAPHORE = 1;
const FULL = 0xffff_ffff_ffff_fffen;
const setFlags = 4;

/** An event as a hostile peer hands it over: full, and blocking again after it was adopted. */
function fullEvent(flags: number): Event {
  const event = Event.adopt(new Descriptor(libc().eventfd(0, flags)))!;
  libc().write(event.descriptor.number, new BigUint64Array([FULL]), 8n);
  libc().fcntl(event.descriptor.number, setFlags, 0);
  return event;
}

Deno.test("Event signals without waiting although the other end has filled it and made it blocking", () => {
  const before = openDescriptors();
  const event = fullEvent(0);
  for (let i = 0; i < 1000; i++) event.signal();
  assertEquals(event.drain(), true);
  assertEquals(event.drain(), false);
  for (let i = 0; i < 1000; i++) {
    event.signal();
    assertEquals(event.drain(), true, `signal ${i}`);
  }
  event.close();
  assertEquals(openDescriptors(), before);
});

Deno.test("Event notices that a semaphore of a peer's never runs dry, and only then", () => {
  const event = fullEvent(SEMAPHORE);
  assertEquals(event.isEndless, false);
  assertEquals(event.drain(), true);
  assertEquals(event.isEndless, true);
  event.close();
  using few = Event.adopt(new Descriptor(libc().eventfd(40, SEMAPHORE)))!;
  assertEquals([few.drain(), few.isEndless, few.drain()], [true, false, false]);
  using own = Event.create();
  for (let i = 0; i < 1000; i++) {
    own.signal();
    assertEquals([own.drain(), own.isEndless], [true, false]);
  }
});

Deno.test("Event shared with a peer that is not trusted signals without waiting, whatever the peer has set", () => {
  using event = Event.createShared();
  // As its holder can: blocking, and full.
  libc().write(event.descriptor.number, new BigUint64Array([0xffff_ffff_ffff_fffen]), 8n);
  libc().fcntl(event.descriptor.number, 4, 0); // F_SETFL
  event.signal();
  assertEquals(event.drain(), true);
});
