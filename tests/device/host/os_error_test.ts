/** Names of error numbers. */
import { assertEquals } from "@std/assert";
import { errnoName, OsError } from "../../../device/host/mod.ts";

Deno.test("each error number has a name in messages, also one that the runtime does not know", () => {
  assertEquals(errnoName(2), "ENOENT");
  // EOVERFLOW and EHWPOISON of Linux, and a number that nothing has.
  for (const number of [75, 133, 4000]) assertEquals(errnoName(number), `errno ${number}`);
  assertEquals(new OsError("Cannot map", "mmap", 75).message, "Cannot map: mmap failed: errno 75");
});
