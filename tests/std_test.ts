import { assert, assertEquals, assertRejects } from "@std/assert";
import { deadline, delay } from "@std/async";
import { concat, equals } from "@std/bytes";

Deno.test("the @std stand-ins serve the standard library's own code", async () => {
  assertEquals(concat([Uint8Array.of(1), Uint8Array.of(2, 3)]), Uint8Array.of(1, 2, 3));
  assert(equals(Uint8Array.of(1), Uint8Array.of(1)));
  await delay(0);
  const never = new Promise<void>(() => {});
  await assertRejects(() => deadline(never, 1), DOMException);
});
