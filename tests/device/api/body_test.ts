/** The body of a request, taken apart as it arrives. */
import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { BodyReader } from "../../../device/api/body.ts";
import { ApiError } from "../../../device/api/mod.ts";

/** Gives a reader a text, cut at places. */
function read(text: string, cuts: readonly number[] = []): Readonly<Record<string, unknown>> {
  const bytes = new TextEncoder().encode(text);
  const reader = new BodyReader();
  const places = cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b);
  let from = 0;
  for (const to of [...places, bytes.length]) {
    reader.add(bytes, from, to);
    from = to;
  }
  return reader.finish();
}

const cuts = fc.array(fc.nat(5000), { maxLength: 6 });

Deno.test("a small object comes out as a JSON parser has it, however it is cut", () => {
  const texts = fc.string({ unit: "grapheme", maxLength: 40 });
  const objects = fc.dictionary(texts, fc.oneof(texts, fc.integer(), fc.boolean()), { maxKeys: 8 });
  fc.assert(fc.property(objects, cuts, fc.boolean(), (object, cuts, spaced) => {
    const text = JSON.stringify(object, null, spaced ? 2 : 0);
    assertEquals(read(text, cuts), { ...JSON.parse(text) });
  }));
});

Deno.test("one long text in hexadecimal is its bytes, however it is cut", () => {
  const bytes = fc.uint8Array({ minLength: 1025, maxLength: 3000 });
  fc.assert(fc.property(bytes, cuts, fc.boolean(), (bytes, cuts, upper) => {
    const hex = upper ? bytes.toHex().toUpperCase() : bytes.toHex();
    assertEquals(read(`{"a": "\\"x", "data": "${hex}", "b": 1}`, cuts), {
      a: '"x',
      data: bytes,
      b: 1,
    });
  }));
});

Deno.test("a long text that is no hexadecimal is no bytes, and two of them are refused", () => {
  for (const text of ["x".repeat(2100), "a".repeat(2101), `${"a".repeat(2100)}\\"`]) {
    assertEquals(typeof read(`{"data":"${text}"}`).data, "string");
  }
  const long = "0".repeat(2100);
  assertThrows(() => read(`{"a":"${long}","b":"${long}"}`), ApiError, "JSON object");
  assertThrows(() => read(`{"a":${" ".repeat(5000)}1}`), ApiError, "JSON object");
});
