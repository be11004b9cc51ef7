/** What is wrong with a description is named by its place. */
import { assertEquals, assertThrows } from "@std/assert";
import { checkDescription, checkTables } from "../../../device/command/table_description.ts";
import { CommandError } from "../../../device/command/errors.ts";

const MAPPING = { iova: "0x1000", phys: 0x4000, length: "4096", prot: "rw", mmio: true };

/** A description with two mappings, the second as given. */
function description(second: object): unknown {
  return {
    format: "vtd-ss",
    base: 0,
    domains: [{ id: 1, mappings: [MAPPING, { ...MAPPING, ...second }] }],
    endpoints: [{ sid: 1, domain: 1 }, { sid: "2", bypass: true, pasid: 1 }],
  };
}

/** What is said of a description. */
function complaint(value: unknown): string {
  return assertThrows(() => checkDescription(value), CommandError).message;
}

Deno.test("a description of the right form passes, also with what build has written and with queries", () => {
  checkDescription(description({}));
  checkDescription({ ...description({}) as object, mem: [], queries: [], rtaddr: "0x1000" });
});

Deno.test("what is wrong is named by its place", () => {
  const place = "Cannot build: domains[0].mappings[1]";
  const cases: readonly (readonly [unknown, string])[] = [
    [
      description({ iova: "1000h" }),
      `${place}.iova is "1000h": it must be a number, or a text such as "0x1000"`,
    ],
    [
      description({ iova: -1 }),
      `${place}.iova is -1: it must be a number, or a text such as "0x1000"`,
    ],
    [description({ phys: "0x1001" }), `${place}.phys is "0x1001": it must be a multiple of 4096`],
    [
      description({ phys: "0x10000000000000000" }),
      `${place}.phys is "0x10000000000000000": it must be below 2^64`,
    ],
    [description({ prot: "x" }), `${place}.prot is "x": it must be r, w or rw`],
    [description({ lenght: 1 }), `${place} has no "lenght": did you mean length?`],
    [description({ mmio: 1 }), `${place}.mmio is 1: it must be true or false`],
    [{ format: "vtd-ss", base: 0, domains: [{}] }, "Cannot build: domains[0].id is missing"],
    [{ format: "vtd-ss", base: 0, domains: {} }, "Cannot build: domains is {}: it must be a list"],
    [
      { format: "vtd-ss", base: 0, endpoints: [3] },
      "Cannot build: endpoints[0] is 3: it must be a JSON object",
    ],
    [{ format: "vtd-ss" }, "Cannot build: base is missing"],
    [{ base: 0 }, "Cannot build: format is missing"],
    [{ base: 0, fromat: 1 }, 'Cannot build: the input has no "fromat": did you mean format?'],
    [
      { format: "vtd-ss", base: 0, mode: "old" },
      'Cannot build: mode is "old": it must be legacy or scalable',
    ],
    [null, "Cannot build: the input is null: it must be a JSON object"],
    [[], "Cannot build: the input is []: it must be a JSON object"],
  ];
  for (const [value, message] of cases) {
    assertEquals(complaint(value), message);
  }
});

Deno.test("tables lack a register or a part of a query by name", () => {
  const cases: readonly (readonly [unknown, string])[] = [
    [{ format: "vtd-ss" }, "Cannot walk: rtaddr is missing, which tables of vtd-ss begin with"],
    [
      { format: "smmuv3-s1", strtab_base: 0 },
      "Cannot walk: strtab_cfg is missing, which tables of smmuv3-s1 begin with",
    ],
    [
      { format: "amdv1", devtab: "x" },
      'Cannot walk: devtab is "x": it must be a number, or a text such as "0x1000"',
    ],
    [
      { format: "vtd-ss", rtaddr: 0, queries: [{ sid: 1, access: "r" }] },
      "Cannot walk: queries[0].iova is missing",
    ],
  ];
  for (const [value, message] of cases) {
    assertEquals(
      assertThrows(() => checkTables(value, "Cannot walk"), CommandError).message,
      message,
    );
  }
});
