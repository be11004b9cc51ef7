/** Options of several parts: what is read, and the one line that says what is wrong. */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import fc from "fast-check";
import { UsageError } from "../../../device/command/errors.ts";
import { parseDeviceOptions } from "../../../device/command/device_options.ts";
import { parseEndpointDevice } from "../../../device/command/endpoint_options.ts";
import {
  ENDPOINT,
  FLAG,
  numberFrom,
  oneOf,
  optional,
  parseParts,
  type Part,
  required,
  SOCKET_PATH,
} from "../../../device/command/option_parts.ts";
import { parseEndpointProxy } from "../../../device/command/proxy_options.ts";
import { parseEndpointRelay } from "../../../device/command/relay_options.ts";

const OPTION = {
  name: "--thing",
  head: ENDPOINT,
  parts: {
    socket: required(SOCKET_PATH),
    mode: optional(oneOf("fast", "slow"), "fast"),
    size: optional(numberFrom(1, 9), undefined),
    quiet: FLAG,
  },
};

Deno.test("parts come in any order; those that are not given have their standard value", () => {
  assertEquals(parseParts(OPTION, "00:03.0,quiet,size=3,socket=/a=b,mode=slow"), [
    24,
    { socket: "/a=b", mode: "slow", size: 3, quiet: true },
  ]);
  assertEquals(parseParts(OPTION, "24,socket=/a"), [
    24,
    { socket: "/a", mode: "fast", size: undefined, quiet: false },
  ]);
});

Deno.test("what is wrong with a part is said in one line that names it and what would be right", () => {
  const all = "socket=…, mode=…, size=…, quiet";
  const cases: readonly (readonly [text: string, problem: string])[] = [
    ["", "it must begin with an endpoint such as 00:03.0"],
    ["socket=/a", "it must begin with an endpoint such as 00:03.0"],
    ["24", "socket=… is missing: it must be the path of a socket, of at most 107 bytes"],
    ["24,socket=", "socket has no value: it must be the path of a socket, of at most 107 bytes"],
    ["24,socket", "socket has no value: it must be the path of a socket, of at most 107 bytes"],
    ["24,socket=/a,mode=", "mode has no value: it must be fast or slow"],
    ["24,socket=/a,mode=fats", "mode must be fast or slow"],
    ["24,socket=/a,size=10", "size must be a number from 1 to 9"],
    ["24,socket=/a,quiet=on", "quiet takes no value"],
    ["24,socket=/a,socket=/b", "socket=… is given twice"],
    ["24,socket=/a,quiet,quiet", "quiet is given twice"],
    ["24,scoket=/a", 'there is no part "scoket", did you mean socket=…?'],
    ["24,socket=/a,Quite", 'there is no part "Quite", did you mean quiet?'],
    ["24,socket=/a,b", `there is no part "b", only ${all}`],
    ["24,socket=/a,__proto__=1", `there is no part "__proto__", only ${all}`],
    ["24,socket=/a,toString", `there is no part "toString", only ${all}`],
    ["24,socket=/a,", `a part has no name, it must be one of ${all}`],
    ["24,,socket=/a", `a part has no name, it must be one of ${all}`],
    ["24,=/a", `a part has no name, it must be one of ${all}`],
  ];
  for (const [text, problem] of cases) {
    const { message } = assertThrows(() => parseParts(OPTION, text), UsageError);
    assertEquals(message, `Cannot take --thing ${text}: ${problem}`);
  }
});

Deno.test("a line break in an option does not break the line that says what is wrong", () => {
  const { message } = assertThrows(() => parseParts(OPTION, "24,socket=\n,\u2028\r"), UsageError);
  assertMatch(message, /^Cannot take --thing 24,socket=\\u\{a\},\\u\{2028\}\\u\{d\}: .*quiet$/);
});

/** A value with its text, of one of the kinds there are. */
interface Rendered {
  readonly part: Part<unknown>;
  /** What is written behind the name; undefined where the part is not given. */
  readonly text: string | undefined;
  readonly value: unknown;
}

const name = fc.stringMatching(/^[a-z_][a-zA-Z0-9_-]{0,12}$/);
const path = fc.string({ minLength: 1, unit: "grapheme" }).filter((text) => !text.includes(","));
const words = fc.uniqueArray(name, { minLength: 1, maxLength: 4 });
const rendered: fc.Arbitrary<Rendered> = fc.oneof(
  path.map((text) => ({ part: required(SOCKET_PATH), text: `=${text}`, value: text })),
  fc.record({ text: fc.option(path), standard: path }).map(({ text, standard }) => ({
    part: optional(SOCKET_PATH, standard),
    text: text === null ? undefined : `=${text}`,
    value: text ?? standard,
  })),
  fc.tuple(fc.nat(), fc.nat(), fc.nat()).map((numbers) => {
    const [first, number, last] = numbers.sort((one, other) => one - other);
    return { part: required(numberFrom(first, last)), text: `=${number}`, value: number };
  }),
  words.chain((all) => fc.tuple(fc.constant(all), fc.constantFrom(...all))).map(([all, word]) => ({
    part: optional(oneOf(...all), undefined),
    text: `=${word}`,
    value: word,
  })),
  fc.boolean().map((given) => ({ part: FLAG, text: given ? "" : undefined, value: given })),
);

/** An option, a text of it, and what that says. */
const written = fc.record({
  endpoint: fc.nat({ max: 0xffff }),
  parts: fc.uniqueArray(fc.tuple(name, rendered), { maxLength: 6, selector: ([each]) => each }),
}).chain(({ endpoint, parts }) => {
  const given = parts.filter(([, { text }]) => text !== undefined);
  const items = given.map(([each, { text }]) => each + text);
  return fc.shuffledSubarray(items, { minLength: items.length }).map((shuffled) => ({
    option: {
      name: "--thing",
      head: ENDPOINT,
      parts: Object.fromEntries(parts.map(([each, { part }]) => [each, part])),
    },
    text: [endpoint, ...shuffled].join(","),
    values: [endpoint, Object.fromEntries(parts.map(([each, { value }]) => [each, value]))],
  }));
});

/** A text with one character inserted, removed or replaced. */
function mutated(text: string): fc.Arbitrary<string> {
  const inserted = fc.oneof(
    fc.constantFrom("", ",", "=", ":", "-", "\n", "\0", "\u2028"),
    fc.string({ maxLength: 1 }),
  );
  return fc.tuple(fc.nat({ max: text.length }), fc.nat({ max: 1 }), inserted).map(
    ([at, removed, character]) => text.slice(0, at) + character + text.slice(at + removed),
  );
}

/** Fails unless there are values, or a refusal of one line that begins as all do. */
function assertRead(option: string, parse: () => unknown): void {
  try {
    assert(parse() !== undefined);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    assert(error.message.startsWith(`Cannot take ${option} `), error.message);
    assertMatch(error.message, /^.+$/);
  }
}

Deno.test("whatever parts an option has, a text of it is read as the values it was written from", () => {
  fc.assert(fc.property(written, ({ option, text, values }) => {
    assertEquals<unknown>(parseParts(option, text), values);
  }));
});

Deno.test("whatever character of a text is changed, it is read, or refused in one line", () => {
  const changed = written.chain(({ option, text }) => fc.tuple(fc.constant(option), mutated(text)));
  fc.assert(fc.property(changed, ([option, text]) => {
    assertRead("--thing", () => parseParts(option, text));
  }));
});

const TEXTS:
  readonly (readonly [option: string, parse: (text: string) => unknown, text: string])[] = [
    [
      "--endpoint",
      (text) => parseDeviceOptions({ "endpoint": [text] }),
      "00:03.0-0000:00:05.7,format=vtd-ss",
    ],
    [
      "--resv",
      (text) => parseDeviceOptions({ "resv": [text] }),
      "0x8000000-0x80fffff,endpoint=00:03.0-24,type=msi",
    ],
    [
      "--endpoint-device",
      parseEndpointDevice,
      "rng:00:03.0,socket=/run/a.sock,seed=0xffffffff",
    ],
    [
      "--endpoint-device",
      parseEndpointDevice,
      "blk:24,socket=/run/a.sock,file=a=b.img,readonly,serial=S 1,queues=64",
    ],
    [
      "--endpoint-proxy",
      parseEndpointProxy,
      "24,listen=/a,backend=/b,backend-mode=listen,write-only=keep,timeout-ms=60000",
    ],
    [
      "--endpoint-relay",
      parseEndpointRelay,
      "24,listen=/a,backend=/b,backend-mode=connect,memory=1G,timeout-ms=1,type=vsock",
    ],
  ];

for (const [option, parse, text] of TEXTS) {
  Deno.test(`${option} ${text}, with any character changed, is read or refused in one line`, () => {
    parse(text);
    fc.assert(fc.property(mutated(text), (changed) => assertRead(option, () => parse(changed))));
  });
}
