import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { decode, encode, packet, PacketKind } from "../../../device/holder/mod.ts";
import { DeathCount } from "../../../device/holder/death_count.ts";

const WORD = fc.nat(0xffff_ffff);
const BYTES = fc.uint8Array({ maxLength: 64 }).map((bytes) => new Uint8Array(bytes));

Deno.test("a packet is what was encoded, and nothing that is cut or longer is a packet", () => {
  fc.assert(fc.property(
    fc.record({
      kind: WORD,
      number: WORD,
      ids: fc.array(WORD, { maxLength: 8 }),
      first: BYTES,
      second: BYTES,
    }),
    fc.nat(200),
    (message, cut) => {
      const bytes = encode(message);
      assertEquals(decode(bytes), message);
      if (cut < bytes.length) assertEquals(decode(bytes.slice(0, cut)), undefined);
      assertEquals(decode(Uint8Array.of(...bytes, 0)), undefined);
    },
  ));
  assertEquals(decode(encode(packet(PacketKind.END)))?.kind, PacketKind.END);
});

Deno.test("five deaths at once are too many, unless something was served or time has passed in between", () => {
  const deaths = new DeathCount();
  for (let i = 0; i < 4; i++) deaths.died(false, 999);
  assert(!deaths.isTooMany);
  deaths.died(true, 0);
  for (let i = 0; i < 4; i++) deaths.died(false, 0);
  assert(!deaths.isTooMany);
  deaths.died(false, 1000);
  assertEquals(deaths.inARow, 0);
  for (let i = 0; i < 4; i++) deaths.died(false, 0);
  deaths.progress();
  for (let i = 0; i < 5; i++) deaths.died(false, 0);
  assert(deaths.isTooMany);
});
