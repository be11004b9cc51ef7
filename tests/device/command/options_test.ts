/** How arguments become values, by the definitions of options. */
import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { UsageError } from "../../../device/command/errors.ts";
import { type OptionDefinition, parseOptions } from "../../../device/command/options.ts";

const OPTIONS: readonly OptionDefinition[] = [
  { name: "output", short: "o", value: "FILE", help: "" },
  { name: "count", value: "N", help: "" },
  { name: "device", value: "ID", help: "", repeats: true },
  { name: "json", help: "" },
];

/** Parses a line without quoting. */
function parse(line: string): unknown {
  const { values, positionals } = parseOptions(
    line.split(" ").filter((arg) => arg !== ""),
    OPTIONS,
  );
  return [values, positionals];
}

Deno.test("an option's value is attached or follows, and a dash alone or a negative number is one", () => {
  for (const line of ["--output x", "--output=x", "-o x", "-ox", "-o=x", "--output y -o x"]) {
    assertEquals(parse(line), [{ output: "x" }, []], line);
  }
  assertEquals(parse("-o - --count -1"), [{ output: "-", count: "-1" }, []]);
  assertEquals(parse("--device a=b --json c --device=d"), [{ device: ["a=b", "d"], json: true }, [
    "c",
  ]]);
  assertEquals(parse("a -- --json"), [{}, ["a", "--json"]]);
});

Deno.test("what is wrong with an option is said in one line that says what would be right", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["--output", "Cannot take --output without a value: it is --output FILE"],
    ["--output --json", "Cannot take --output without a value: it is --output FILE"],
    ["--output=", "Cannot take --output with an empty value: it is --output FILE"],
    ["--json=yes", "Cannot take --json=yes: --json has no value"],
    ["--ouput x", "Unknown option '--ouput': did you mean --output?"],
    ["--speed=1", "Unknown option '--speed': the options are --output, --count, --device, --json"],
    ["-x", "Unknown option '-x': the options are --output, --count, --device, --json"],
  ];
  for (const [line, message] of cases) {
    assertThrows(() => parse(line), UsageError, message);
  }
  assertThrows(() => parseOptions(["--x"], []), UsageError, "'--x': this command has none");
});

Deno.test("whatever is typed, it is read, or refused as wrong usage", () => {
  const piece = fc.oneof(
    fc.string(),
    fc.constantFrom("--output", "-o", "--json", "--", "-", "=", "--device=", "-1", "__proto__"),
  );
  fc.assert(fc.property(fc.array(piece), (args) => {
    try {
      parseOptions(args, OPTIONS);
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
    }
  }));
});
