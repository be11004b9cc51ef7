import { assertEquals, assertThrows } from "@std/assert";
import { closeAll, Descriptor, Event } from "../../../device/host/mod.ts";
import { descriptorStatus } from "../../../device/host/file_status.ts";

Deno.test("Descriptor closes what it owns, once", () => {
  const { descriptor } = Event.create();
  const number = descriptor.number;
  descriptor.close();
  assertEquals(descriptor.isOpen, false);
  assertEquals(descriptor.number, -1);
  assertEquals(descriptorStatus(number), 9); // EBADF
  descriptor.close();
});

Deno.test("Descriptor gives up the duty to close when it is taken", () => {
  const { descriptor } = Event.create();
  const number = descriptor.take();
  descriptor.close();
  assertEquals(typeof descriptorStatus(number), "object");
  assertThrows(() => descriptor.take(), Error, "Cannot take a descriptor that is closed");
  new Descriptor(number).close();
  assertEquals(descriptorStatus(number), 9);
});

Deno.test("Descriptor duplicates have owners of their own", () => {
  const event = Event.create();
  const copy = event.descriptor.duplicate();
  event.close();
  assertEquals(typeof descriptorStatus(copy.number), "object");
  copy.close();
});

Deno.test("Descriptor refuses numbers that cannot be descriptors", () => {
  assertThrows(() => new Descriptor(-1), RangeError, "below 0: -1");
  assertThrows(() => new Descriptor(1.5), RangeError);
});

Deno.test("closeAll() closes and empties", () => {
  const list = [Event.create().descriptor, Event.create().descriptor];
  const numbers = list.map((each) => each.number);
  closeAll(list);
  assertEquals(list, []);
  assertEquals(numbers.map(descriptorStatus), [9, 9]);
});
