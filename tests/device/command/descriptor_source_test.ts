/** Numbers of descriptors in options: what they lead to, inherited or sent with a request. */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import {
  InheritedDescriptors,
  SentDescriptors,
} from "../../../device/command/descriptor_source.ts";
import { closeAll, createPipe, Descriptor, isSameFile } from "../../../device/host/mod.ts";
import { libc } from "../../../device/host/libc.ts";
import { openDescriptors } from "../host/host_state.ts";

/** A number that no descriptor has. */
const CLOSED = 1022;
const F_SETFD = 2;

Deno.test("an inherited descriptor is taken over, and no program that is started later inherits it", async () => {
  const [end, rest] = createPipe();
  const number = end.take();
  // As one is that was inherited.
  libc().fcntl(number, F_SETFD, 0);
  const inherited = new InheritedDescriptors();
  assertEquals(inherited.numberOf(number), number);
  using descriptor = inherited.take(number);
  assertEquals(descriptor.number, number);
  const flags = await Deno.readTextFile(`/proc/self/fdinfo/${number}`);
  assertMatch(flags, /^flags:\s+02[0-9]+$/m);
  rest.close();
});

Deno.test("a number that is given twice is one file, of which each has a descriptor", () => {
  const before = openDescriptors();
  const [end, rest] = createPipe();
  const inherited = new InheritedDescriptors();
  const number = end.take();
  const [one, two] = [inherited.take(number), inherited.take(number)];
  assert(one.number !== two.number);
  assert(isSameFile(one, two));
  const sent = [two, rest];
  const source = new SentDescriptors(sent);
  const again = [source.take(0), source.take(0), source.take(1)];
  assertEquals(again[0], two);
  assert(isSameFile(again[1], two));
  assertEquals([again[2], sent], [rest, []]);
  closeAll([one, ...again]);
  assertEquals(openDescriptors(), before);
});

Deno.test("what is not taken of the descriptors of a request stays in its list", () => {
  const sent = [...createPipe(), ...createPipe()];
  const [, second] = sent;
  const source = new SentDescriptors(sent);
  assertEquals(source.numberOf(1), second.number);
  assertEquals(source.take(1), second);
  assertEquals(sent.length, 3);
  closeAll(sent);
  second.close();
});

Deno.test("a number without a descriptor is one line that says what would be right", () => {
  const cases: readonly (readonly [() => unknown, string])[] = [
    [
      () => new InheritedDescriptors().numberOf(CLOSED),
      "Cannot use descriptor 1022: EBADF; it was not inherited (deno task and npx do not pass descriptors on)",
    ],
    [
      () => new SentDescriptors([]).numberOf(0),
      "Cannot use descriptor 0 of the request: none came with it",
    ],
    [
      () => new SentDescriptors([new Descriptor(0), new Descriptor(1)]).take(2),
      "Cannot use descriptor 2 of the request: only 0 to 1 came with it",
    ],
  ];
  for (const [action, message] of cases) assertThrows(action, RangeError, message);
});
