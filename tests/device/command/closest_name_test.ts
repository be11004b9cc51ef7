/** The name that a misspelt one was meant to be. */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { closestName } from "../../../device/command/closest_name.ts";

const NAMES = ["listen", "backend", "backend-mode", "timeout-ms", "write-only", "file"];

Deno.test("a name is found behind a slip or two, and not behind another word", () => {
  const cases: readonly (readonly [typed: string, meant: string | undefined])[] = [
    ["lisetn", "listen"],
    ["LISTEN", "listen"],
    ["listens", "listen"],
    ["back-end", "backend"],
    ["backend_mode", "backend-mode"],
    ["timeout", "timeout-ms"],
    ["fil", "file"],
    ["fire", "file"],
    ["fi", undefined],
    ["mode", undefined],
    ["", undefined],
    ["x".repeat(100_000), undefined],
  ];
  for (const [typed, meant] of cases) assertEquals(closestName(typed, NAMES), meant, typed);
});

Deno.test("none of several equally close names is taken", () => {
  assertEquals(closestName("sends", ["seed", "send", "sens"]), undefined);
  assertEquals(closestName("sendd", ["seed", "send", "sens"]), "send");
});

Deno.test("any one character changed, or two adjacent ones swapped, the name is found", () => {
  const slip = fc.constantFrom(...NAMES).chain((name) =>
    fc.tuple(
      fc.constant(name),
      fc.nat({ max: name.length - 1 }),
      fc.constantFrom("insert", "remove", "replace", "swap"),
      fc.stringMatching(/^[a-z-]$/),
    )
  );
  fc.assert(fc.property(slip, ([name, at, kind, character]) => {
    const [before, here, behind] = [name.slice(0, at), name[at], name.slice(at + 1)];
    const typed = {
      insert: before + character + here + behind,
      remove: before + behind,
      replace: before + character + behind,
      swap: before + behind.slice(0, 1) + here + behind.slice(1),
    }[kind];
    assertEquals(closestName(typed!, NAMES), name);
  }));
});
